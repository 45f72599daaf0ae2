from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

TARGET = ("--target", "onnxruntime-cpu")


def test_yes_is_exit_code_0(capsys: pytest.CaptureFixture[str], artifact: Path) -> None:
    assert run("verify", artifact, *TARGET) == 0
    captured = capsys.readouterr()
    assert "6 of 6" in captured.out and "4 files: yes: it is what was built" in captured.out
    assert captured.err == ""


def test_no_is_exit_code_1_with_what_differs(capsys: pytest.CaptureFixture[str], artifact: Path) -> None:
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b"!")
    assert run("verify", artifact, *TARGET) == 1
    captured = capsys.readouterr()
    assert "no: 1 things differ" in captured.out and "failed: " in captured.err and "model.onnx has" in captured.err
    assert document(capsys, "verify", artifact, *TARGET, code=1)["good"] is False


def test_no_build_is_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "not the folder of a build" in refused(capsys, "verify", tmp_path)
