"""`fimaq-deploy parity`: what is printed of an outcome, and what is refused. `verify/test_stages.py` has a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import refused

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.parity import _print
from fimaq_deploy.verify.block_parity import Comparison, Outcome
from fimaq_deploy.verify.flips import Flips
from fimaq_deploy.verify.stages import AS_WRITTEN, FUSED, ParityReport, StageParity

BLOCK = StageParity("blocks.0", 0.00123, 0.5, 0.25, 0.5, Flips(3, 0.0125, 0.0))
HEAD = StageParity("head", 0.5, 0.5, 0.0, 1.0)
WRITTEN = ParityReport((BLOCK, HEAD), 0.875, 0.5, AS_WRITTEN, as_written=True)
ENGINE = ParityReport((HEAD,), None, 0.0625, FUSED, as_written=False)
OUTCOME = Outcome(
    "mine",
    8,
    {"model.onnx": [], "model.int4.onnx": ["a", "b"]},
    (Comparison("onnx-reference", "model.onnx", WRITTEN), Comparison("engine", "model.onnx", ENGINE)),
)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of each line of what is printed, on a wide page."""
    monkeypatch.setattr(stdout, "width", 160)
    _print(OUTCOME)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_weights_come_first(lines: list[list[str]]) -> None:
    told = [" ".join(words) for words in lines[:2]]
    assert told == ["model.onnx: integer weights equal", "model.int4.onnx: 2 weights differ"]


def test_every_stage_is_a_row_in_percent_and_what_was_not_measured_is_empty(lines: list[list[str]]) -> None:
    assert ["blocks.0", "0.0012", "25", "3", "1.2", "50"] in lines
    assert lines.count(["head", "0.5", "0", "1e+02"]) == 2


def test_the_head_says_where_integers_were_judged(lines: list[list[str]]) -> None:
    heads = [" ".join(words) for words in lines if words[:1] == ["stage"]]
    columns = "stage largest difference differing % integers {}: steps flipped % added up %"
    assert heads == [columns.format("inside"), columns.format("behind")]


def test_in_the_end_there_are_classes_or_the_largest_difference(lines: list[list[str]]) -> None:
    ends = [" ".join(words) for words in lines if words[:1] in (["onnx-reference:"], ["engine:"])]
    assert ends == [
        "onnx-reference: 87.50 % of 8 images get the same class",
        "engine: the outputs differ by at most 0.062",
    ]


def test_what_is_no_build_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "parity", tmp_path)
    assert line.endswith("name the folder of a build or its quantized.safetensors")
    line = refused(capsys, "parity", tmp_path / "missing.safetensors")
    assert "no quantized model" in line


@pytest.mark.parametrize("count", [0, -1, 1_000_001])
def test_a_number_of_images_is_at_least_one(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "parity", ".", "--count", count) == f"error: --count {count}: expected 1 to 1,000,000"


def test_a_file_without_a_manifest_needs_the_models_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "quantized.safetensors").write_bytes(b"anything")
    assert refused(capsys, "parity", tmp_path).endswith("name it with --model")
