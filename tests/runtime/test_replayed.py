from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fimaq_deploy.engines.onnxruntime import load_onnxruntime
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import RUNTIMES
from fimaq_deploy.runtime.verification import Verification, verify_artifact


def verified(artifact: Path) -> Verification:
    return verify_artifact(artifact, targets=["onnxruntime-cpu"], time=False)


def other_runtime(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """ONNX Runtime in a version that computes something else."""
    right = RUNTIMES["onnxruntime-cpu"]

    def load(path: Path, **options: Any) -> Runner:
        runner = load_onnxruntime(path, **options)
        return Runner("other", runner.input_shape, runner, lambda images: change(runner.outputs(images)))

    monkeypatch.setitem(RUNTIMES, right.name, replace(right, loader=load))


def test_a_runtime_that_computes_differently_is_told(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_runtime(monkeypatch, lambda found: {name: np.roll(one, 1, axis=-1) for name, one in found.items()})
    problems = verified(artifact).problems
    assert any("is allowed" in problem for problem in problems)
    assert any("6 of 6 images another class" in problem for problem in problems)


def test_a_runtime_that_rounds_differently_is_good(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_runtime(monkeypatch, lambda found: {name: one * np.float32(1.001) for name, one in found.items()})
    assert verified(artifact).good


def test_outputs_that_are_no_numbers_are_told(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_runtime(monkeypatch, lambda found: {name: one * np.float32("nan") for name, one in found.items()})
    found = verified(artifact)
    assert not found.good and found.document()["replayed"][0]["distance"] is None


def test_outputs_of_another_shape_are_told(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_runtime(monkeypatch, lambda found: {name: one[:, :3] for name, one in found.items()})
    assert any("returns other outputs" in problem for problem in verified(artifact).problems)
