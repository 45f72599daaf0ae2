from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

from fimaq_deploy.report.load import load_report
from fimaq_deploy.report.schema import Report

BUILT = Path(__file__).parent.parent.parent / ".ci" / "baseline" / "report.json"


@pytest.fixture
def builds(tmp_path: Path) -> Path:
    """The accepted build of the demo four times, the last time with a larger file."""
    report: Report = load_report(BUILT)
    for number in range(4):
        rows = [
            row.model_copy(update={"size_bytes": (row.size_bytes or 0) * (110 if number == 3 else 100) // 100})
            for row in report.rows
        ]
        file = tmp_path / "builds" / str(number) / "report.json"
        file.parent.mkdir(parents=True)
        changed = {"rows": rows, "created": f"2026-01-0{number + 1}T00:00:00+00:00"}
        file.write_text(report.model_copy(update=changed).to_json())
    return tmp_path / "builds"


def test_what_became_worse_is_exit_code_1(capsys: pytest.CaptureFixture[str], builds: Path, tmp_path: Path) -> None:
    assert run("history", builds, "--html", tmp_path / "history.html") == 1
    captured = capsys.readouterr()
    assert "worse: swin_digits" in captured.err and "size in MB" in captured.out
    assert "<svg" in (tmp_path / "history.html").read_text()
    assert document(capsys, "history", builds, code=1)["builds"] == 4


def test_nothing_worse_is_exit_code_0(capsys: pytest.CaptureFixture[str], builds: Path) -> None:
    assert run("history", *(builds / str(number) for number in range(3))) == 0


def test_no_builds_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no report.json" in refused(capsys, "history", tmp_path)
