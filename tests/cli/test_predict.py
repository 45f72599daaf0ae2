from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fixtures.commands import document, refused, run


def test_a_table_and_what_runs_it(
    capsys: pytest.CaptureFixture[str], artifact: Path, photographs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = photographs(2)
    monkeypatch.chdir(files[0].parent)
    assert run("predict", artifact, *(file.name for file in files), "--top", 1) == 0
    captured = capsys.readouterr()
    assert captured.out.count("class ") == 2 and "1.png" in captured.out
    assert captured.err.startswith("ONNX Runtime CPU runs model.onnx")


def test_the_document(capsys: pytest.CaptureFixture[str], artifact: Path, photographs: Any) -> None:
    found = document(capsys, "predict", artifact, *photographs(2))
    assert found["schema"] == "fimaq-deploy/predict/1"
    assert [len(one["top"]) for one in found["images"]] == [3, 3]


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], artifact: Path, photographs: Any) -> None:
    (file,) = photographs(1)
    assert "no such file" in refused(capsys, "predict", artifact, artifact / "none.png").lower()
    assert "is not there" in refused(capsys, "predict", artifact / "none", file)
    assert "threads" in refused(capsys, "predict", artifact, file, "--threads", 0)
    assert "top" in refused(capsys, "predict", artifact, file, "--top", 0)


def test_what_is_no_file_is_not_waited_for(capsys: pytest.CaptureFixture[str], artifact: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    for path in (tmp_path / "pipe.png", tmp_path / "link.png", "/dev/zero"):
        assert "not a pipe, a device or a link to nothing" in refused(capsys, "predict", artifact, path)
