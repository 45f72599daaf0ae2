"""`fimaq-deploy sweep`: a plan whose one build fails at once, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.sweep import _print
from fimaq_deploy.pipeline.sweeps import SweepResult
from fimaq_deploy.report.sweep_page.records import Cell, Line, Sweep

# No target executes 6 bits in blocks.
PLAN = """
models: [vit_digits]
recipes: [{recipe: w8a8, name: bad, set: [weights.bits=6, weights.block_size=64]}]
targets: [onnxruntime-cpu]
"""
FAILED = "failed: vit_digits-bad: 6-bit weights in blocks of 64 cannot run on target onnxruntime-cpu"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def test_a_build_that_fails_is_a_line_and_exit_code_1(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = plan.parent / "out"
    assert run("sweep", plan, "--out", out) == 1
    printed = capsys.readouterr()
    assert FAILED in printed.err
    assert "Traceback" not in printed.err
    assert "1 build of 1 model and 1 recipe: nothing that could be compared was run here." in printed.out
    assert f"Wrote {out / 'sweep.html'}" in printed.out
    assert {path.name for path in out.iterdir()} >= {"sweep.html", "sweep.json", "sweep.md"}


def test_programs_get_what_sweep_json_holds_and_nothing_else(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = plan.parent / "out"
    found = document(capsys, "sweep", plan, "--out", out, code=1)
    assert found == json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert [cell["state"] for cell in found["cells"]] == ["failed"]


def test_the_leaderboard_is_printed_the_most_accurate_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(stdout, "width", 160)

    def cell(recipe: str, top1: float) -> Cell:
        line = Line(id="engine", title="Engine", top1=top1, drop=99 - top1, p50_ms=1.0, speedup=2.0, size_bytes=1000)
        original = Line(id="onnx-fp32", title="ONNX", top1=99.0, p50_ms=2.0)
        kind = {"model": "vit", "recipe": recipe, "targets": ["engine"], "identity": "x", "state": "done"}
        return Cell(name=f"vit-{recipe}", original=original, shipped=[line], **kind)

    sweep = Sweep(name="trial", created="", command="", machine="", cells=[cell("w4a8", 97.5), cell("w8a8", 98.5)])
    _print(SweepResult(tmp_path, sweep))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines if line[:1] == ["vit"]] == [
        ["vit", "w8a8", "Engine", "98.50"],
        ["vit", "w4a8", "Engine", "97.50"],
    ]
    assert lines[-1] == ["Wrote", str(tmp_path / "sweep.html")]


def test_a_plan_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing.yaml" in refused(capsys, "sweep", tmp_path / "missing.yaml")
    empty = tmp_path / "empty.yaml"
    empty.write_text("models: []\n", encoding="utf-8")
    assert "empty.yaml" in refused(capsys, "sweep", empty)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"], "nothing was begun"


def test_a_folder_of_something_else_is_left_alone(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = plan.parent / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    assert "is not an earlier sweep: name another folder with --out" in refused(capsys, "sweep", plan, "--out", mine)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
