from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import document, refused, run


def test_there_and_back(capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path) -> None:
    assert run("package", artifact, "--format", "tar", "--out", tmp_path / "x.tar") == 0
    capsys.readouterr()
    assert run("unpack", tmp_path / "x.tar") == 0
    assert capsys.readouterr().out.splitlines() == [f"Wrote {tmp_path / 'x'}, 6 files"]
    found = document(capsys, "unpack", tmp_path / "x.tar", "--out", tmp_path / "again")
    assert found["out"] == str(tmp_path / "again") and found["files"] == 6


@pytest.mark.parametrize("command", ["verify", "predict", "serve", "package"])
def test_whoever_takes_a_build_says_what_to_do_with_a_tar(
    command: str, capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path
) -> None:
    assert run("package", artifact, "--format", "tar", "--out", tmp_path / "x.tar") == 0
    capsys.readouterr()
    more = {"predict": [tmp_path], "package": ["--format", "hf"]}.get(command, [])
    (tmp_path / "image.png").write_bytes((artifact / "report.json").read_bytes())
    assert "unpack it with `fimaq-deploy unpack`" in refused(capsys, command, tmp_path / "x.tar", *more)


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is no file" in refused(capsys, "unpack", tmp_path / "none.tar")
    (tmp_path / "x.tar").write_bytes(b"nothing")
    assert "truncated, or no tar" in refused(capsys, "unpack", tmp_path / "x.tar")
