"""Sweeps of real builds: killed and run again, with a cell that fails, and after a change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.cli import main
from fimaq_deploy.pipeline.sweeps import SweepResult, sweep
from fimaq_deploy.report.sweep_page.records import Sweep, leaderboard

ROOT = Path(__file__).parents[2]
# No target executes 6 bits in blocks: that build fails.
PLAN = """
models: [vit_digits]
recipes: [w8a8, {recipe: w8a8, name: bad, set: [weights.bits=6, weights.block_size=64]}, w4a8]
targets: [onnxruntime-cpu]
set: [reconstruction.iterations=2, reconstruction.images=32, tuning.iterations=0]
"""
QUICK = ["reconstruction.iterations=2", "reconstruction.images=16", "tuning.iterations=0", "scale_search.candidates=4"]


def table(found: Sweep) -> list[tuple[object, ...]]:
    """Everything of the leaderboard that is no time."""
    return [
        (
            place.cell.name,
            place.line.title,
            place.line.top1,
            place.line.interval,
            place.line.drop,
            place.line.size_bytes,
        )
        for place in leaderboard(found)
    ]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "trial.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(plan: Path) -> SweepResult:
    """Run in one piece."""
    return sweep(plan, out=plan.parent / "whole")


def test_one_failed_cell_does_not_lose_the_others(whole: SweepResult) -> None:
    assert [cell.state for cell in whole.sweep.cells] == ["done", "failed", "done"]
    assert "6-bit weights in blocks of 64 cannot run on target onnxruntime-cpu" in (whole.sweep.cells[1].error or "")
    assert {place.cell.name for place in leaderboard(whole.sweep)} == {"vit_digits-w8a8", "vit_digits-w4a8"}
    names = {path.name for path in whole.out.iterdir()}
    assert names == {"sweep.json", "sweep.html", "sweep.md", "vit_digits-w8a8", "vit_digits-w4a8"}


def test_what_is_written_is_what_was_found(whole: SweepResult) -> None:
    assert Sweep.model_validate_json((whole.out / "sweep.json").read_text(encoding="utf-8")) == whole.sweep
    assert "1 of 3 builds failed" in (whole.out / "sweep.html").read_text(encoding="utf-8")
    assert "vit_digits-bad failed: 6-bit weights" in (whole.out / "sweep.md").read_text(encoding="utf-8")


def test_every_build_holds_its_original(whole: SweepResult) -> None:
    """The second one takes over what the first one exported, as a file of its own."""
    first, second = (whole.out / name / "model.fp32.onnx" for name in ("vit_digits-w8a8", "vit_digits-w4a8"))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_ino != second.stat().st_ino


def test_a_sweep_killed_in_the_middle_ends_with_the_same_table(plan: Path, whole: SweepResult) -> None:
    out = plan.parent / "killed"
    command = [sys.executable, "-m", "fimaq_deploy", "sweep", str(plan), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    try:
        _wait_until(lambda: (out / "vit_digits-w4a8.partial").is_dir(), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    first = out / "vit_digits-w8a8" / "report.json"
    written = first.stat().st_mtime_ns
    left = Sweep.model_validate_json((out / "sweep.json").read_text(encoding="utf-8"))
    assert [cell.state for cell in left.cells] == ["done", "failed", "waiting"]
    again = sweep(plan, out=out)
    assert table(again.sweep) == table(whole.sweep)
    assert first.stat().st_mtime_ns == written, "what was finished is not built again"
    assert not (out / "vit_digits-w4a8.partial").exists()


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_finished_sweep_builds_nothing_and_says_what_failed(
    plan: Path, whole: SweepResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    before = {path: path.stat().st_mtime_ns for path in whole.out.glob("vit_digits-*/*")}
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(plan), "--out", str(whole.out), "--json", str(plan.with_name("found.json"))])
    assert ended.value.code == 1
    assert {path: path.stat().st_mtime_ns for path in whole.out.glob("vit_digits-*/*")} == before
    assert plan.with_name("found.json").read_text() == (whole.out / "sweep.json").read_text()
    printed = capsys.readouterr()
    assert "failed: vit_digits-bad: 6-bit weights in blocks of 64" in printed.err
    assert "2/3 vit_digits-bad" in printed.err
    assert "Wrote" in printed.out
    # A narrow console wraps the engine's title.
    assert all(name in printed.out for name in ("w8a8", "w4a8", "ONNX", "Runtime"))


def test_a_changed_cell_is_stale(plan: Path, whole: SweepResult) -> None:
    """Only read here: what would be built again is waiting."""
    from fimaq_deploy.pipeline.sweep_plan import Plan
    from fimaq_deploy.pipeline.sweep_ray import Store
    from fimaq_deploy.pipeline.sweeps import _earlier, _record, _shared

    plan.with_name("other.yaml").write_text(PLAN.replace("images=32", "images=33"), encoding="utf-8")
    earlier = _earlier(whole.out)
    for name, state in ((plan.name, "done"), ("other.yaml", "waiting")):
        loaded = Plan.load(plan.with_name(name))
        cell = loaded.cells()[0]
        identity = cell.identity(*_shared(loaded))
        assert _record(cell, identity, earlier, Store(whole.out)).state == state
        assert _record(cell, identity, earlier, Store(whole.out.parent / "elsewhere")).state == "waiting"


def test_a_folder_of_something_else_is_one_line(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an earlier sweep: name another folder with --out"):
        sweep(plan, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["", "{", '{"schema": "fimaq-deploy/sweep/9"}', "[]"])
def test_an_unreadable_state_is_one_line(plan: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json is cut off or of another version: remove it") as error:
        sweep(plan, out=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_budget_stands_beside_a_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "budget.yaml"
    recipes = "recipes: [{recipe: auto, size_budget: 0.25}, w8a8]\ntargets: [onnxruntime-cpu]\ndevice: cpu\nreplay: 0"
    path.write_text(f"models: [vit_digits]\n{recipes}\nset: [{', '.join(QUICK)}]\n", encoding="utf-8")
    found = sweep(path, out=tmp_path / "out").sweep
    assert [(cell.name, cell.state, cell.failures) for cell in found.cells] == [
        ("vit_digits-auto-0.25MB", "done", []),
        ("vit_digits-w8a8", "done", []),
    ]
    mixed, uniform = found.cells
    (file,) = {line.size_bytes for line in mixed.shipped}
    assert file == (tmp_path / "out" / mixed.name / "model.onnx").stat().st_size <= 250_000
    assert file < min(line.size_bytes or 0 for line in uniform.shipped)
    assert (mixed.size_budget, uniform.size_budget) == (0.25, None)
    said = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
    assert "auto-0.25MB" in said and "0.25 MB" in said and f"{file / 1e3:.0f} kB" in said
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--out", str(tmp_path / "out")])
    again = Sweep.model_validate_json((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert not ended.value.code and again.cells == found.cells, "nothing is built again"
    printed = capsys.readouterr().out
    assert "auto-0.25MB" in printed and f"{file / 1e3:.0f} kB" in printed
