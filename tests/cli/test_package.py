from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import document, refused, run


def test_it_says_where(capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path) -> None:
    assert run("package", artifact, "--format", "tar", "--out", tmp_path / "x.tar") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {tmp_path / 'x.tar'}"
    found = document(capsys, "package", artifact, "--format", "triton", "--out", tmp_path / "repository")
    assert found["format"] == "triton" and Path(found["out"]).is_dir()


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path) -> None:
    assert "expected one of" in refused(capsys, "package", artifact, "--format", "zip")
    assert "is not there" in refused(capsys, "package", tmp_path / "none", "--format", "tar")
