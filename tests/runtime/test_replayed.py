from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.artifacts import write_facts

from fimaq_deploy.engines.onnxruntime import load_onnxruntime
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import RUNTIMES
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.replay import REPLAY, Replay
from fimaq_deploy.runtime.replayed import FLOOR
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


def constant(artifact: Path, value: float) -> None:
    """The build's outputs as those of a ruined model, with what its ways of running differ by."""
    replay = Replay.load(artifact / REPLAY)
    rows = {
        row: {name: np.full_like(one, value * (1 + 1e-8 * number)) for name, one in named.items()}
        for number, (row, named) in enumerate(replay.rows.items())
    }
    replace(replay, rows=rows).save(artifact / REPLAY)
    contract = contract_in(artifact / "model.onnx")
    assert contract is not None
    write_facts(artifact, contract)


@pytest.mark.parametrize("value", [3.0, 0.0])
def test_an_output_that_never_varies_is_judged_by_its_size(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Its deviation is nothing: over that, any rounding would be far away, and what is allowed as well."""
    constant(artifact, value)
    other_runtime(monkeypatch, lambda found: {name: np.full_like(one, 1.001 * value) for name, one in found.items()})
    found = verified(artifact)
    (one,) = found.replayed
    assert one.allowed == FLOOR and one.distance <= 0.0011
    assert not [problem for problem in found.problems if "is allowed" in problem]
    assert any(f"is {value:.3g} throughout, on every image of the build" in note for note in found.notes)
    other_runtime(monkeypatch, lambda found: {name: np.full_like(one, value + 0.1) for name, one in found.items()})
    assert any("is allowed" in problem for problem in verified(artifact).problems)


def test_outputs_that_vary_have_no_note(artifact: Path) -> None:
    assert not [note for note in verified(artifact).notes if "throughout" in note]
