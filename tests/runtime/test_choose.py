from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.artifacts import write_facts
from fixtures.road import ABSENT, COMPILED

from fimaq_deploy.contract import read_contract
from fimaq_deploy.engines.openvino import unavailable
from fimaq_deploy.engines.runtimes import RUNTIMES
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.runtime.choose import choose_engine

NO_OPENVINO = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def rewrite(artifact: Path, **times: float) -> None:
    contract = read_contract((read_manifest(artifact) or {})["contract"], "")
    rows = [{"id": name.replace("_", "-"), "latency": [{"batch_size": 1, "p50_ms": ms}]} for name, ms in times.items()]
    (artifact / "report.json").write_text(json.dumps({"rows": rows}))
    write_facts(artifact, contract)


@NO_OPENVINO
@pytest.mark.parametrize("own,other", [(1.0, 2.0), (2.0, 1.0)])
def test_the_fastest_by_the_report_is_taken(artifact: Path, own: float, other: float) -> None:
    rewrite(artifact, onnxruntime_cpu=own, openvino_cpu=other)
    choice = choose_engine(open_artifact(artifact))
    assert choice.runtime.name == ("onnxruntime-cpu" if own < other else "openvino-cpu")
    assert "the fastest here by the build's report, 1 ms an image" in choice.sentence


def test_without_a_report_the_first_that_runs_is_taken(artifact: Path) -> None:
    rewrite(artifact)
    choice = choose_engine(open_artifact(artifact))
    assert (choice.runtime.name, choice.why) == ("onnxruntime-cpu", "the first that runs here")


def test_an_engine_for_a_gpu_comes_first_and_is_passed_over_with_a_reason(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(COMPILED, unavailable=lambda: "it has no GPU")
    monkeypatch.setitem(RUNTIMES, absent.name, absent)
    (artifact / "model.compiled.plan").write_bytes(b"engine")
    rewrite(artifact, onnxruntime_cpu=1.0)
    choice = choose_engine(open_artifact(artifact))
    assert choice.runtime.name == "onnxruntime-cpu"
    assert choice.passed_over == ("compiled (it has no GPU)",)


def test_what_does_not_load_is_passed_over(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, COMPILED.name, COMPILED)
    (artifact / "model.compiled.plan").write_bytes(b"engine")
    rewrite(artifact, onnxruntime_cpu=1.0)
    choice = choose_engine(open_artifact(artifact))
    assert choice.runtime.name == "onnxruntime-cpu"
    assert "is not a model that ONNX Runtime loads" in choice.sentence


def test_a_target_that_is_asked_for_runs_or_says_why_not(artifact: Path, known: None) -> None:
    opened = open_artifact(artifact)
    assert choose_engine(opened, "onnxruntime-cpu", threads=1).why == "it was asked for"
    with pytest.raises(UserError, match=r"holds no model\.tensorrt-rtx\.engine"):
        choose_engine(opened, "tensorrt-rtx")
    with pytest.raises(UserError, match="it is not installed"):
        choose_engine(opened, ABSENT.name)


@pytest.fixture
def absent_alone() -> Iterator[None]:
    """Nothing else is known; afterwards all are again, in the order that they had."""
    before = dict(RUNTIMES)
    RUNTIMES.clear()
    RUNTIMES[ABSENT.name] = ABSENT
    yield
    RUNTIMES.clear()
    RUNTIMES.update(before)


@pytest.mark.usefixtures("absent_alone")
def test_where_nothing_runs_every_reason_is_said(artifact: Path) -> None:
    with pytest.raises(UserError, match=r"nothing in .* runs here: absent \(it is not installed\)"):
        choose_engine(open_artifact(artifact))
