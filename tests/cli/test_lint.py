from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from fixtures.commands import document, refused, run

from fimaq_deploy import lint


def test_findings_are_told_and_errors_are_exit_code_1(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lint(model_path, "onnxruntime-cpu")
    assert run("lint", model_path, "--target", "onnxruntime-cpu") == bool(found.errors)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{model_path} for onnxruntime-cpu: {found.errors} errors, {found.warnings} warnings"


def test_the_same_for_programs(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lint(model_path, "openvino-cpu")
    told = document(capsys, "lint", model_path, "--target", "openvino-cpu", code=int(found.errors > 0))
    assert told == found.document()
    assert told["findings"] == [asdict(finding) for finding in found]
    assert (told["schema"], told["file"], told["target"]) == ("fimaq-deploy/lint/1", str(model_path), "openvino-cpu")


def test_bad_input_is_one_line(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown target 'tensort'" in refused(capsys, "lint", model_path, "--target", "tensort")
    assert "no ONNX file none.onnx" in refused(capsys, "lint", "none.onnx", "--target", "tensorrt")
