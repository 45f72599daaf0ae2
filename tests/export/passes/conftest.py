"""Graphs as text through a pass: their operators and, in ONNX Runtime without optimisations, their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from fixtures.drawn import drawn

from fimaq_deploy.export.passes import Pass

Numbers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Passed:
    """A model with its operators and results, before a pass and behind it. `model` is the one behind it."""

    model: ir.Model
    changed: bool
    operators: tuple[list[str], list[str]]
    results: tuple[list[np.ndarray], list[np.ndarray]]
    obstacles: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def through(tmp_path: Path) -> Callable[..., Passed]:
    """`through(pass, model or text, x=array)`: what a pass makes of a graph. `exact=False` allows float noise."""

    def run(model: ir.Model, numbers: Numbers) -> list[np.ndarray]:
        ir.save(model, tmp_path / "one.onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(tmp_path / "one.onnx"), options, providers=["CPUExecutionProvider"])
        return session.run(None, numbers)

    def apply(step: Pass, graph: ir.Model | str, **numbers: np.ndarray) -> Passed:
        model = drawn(graph) if isinstance(graph, str) else graph
        before, first = [node.op_type for node in model.graph], run(model, numbers)
        why, changed = step.obstacles(model), step(model)
        after = [node.op_type for node in model.graph]
        assert not step(model), "a second time there is nothing left to do"
        return Passed(model, changed, (before, after), (first, run(model, numbers)), why)

    return apply


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    def make(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)

    return make
