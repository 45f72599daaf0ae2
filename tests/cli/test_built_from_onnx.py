"""What each command does with a build of a bare ONNX file: its work, or one line. `serve`: `serving/test_app.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.bare_onnx import QUICK
from fixtures.commands import document, expect_error, run

from fimaq_deploy.pipeline.builds import BuildResult


@pytest.fixture
def folder(built_from_onnx: BuildResult) -> Path:
    return built_from_onnx.out


def test_verify_runs_it_and_compares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "verify", folder)
    assert found["good"] and found["files"]


def test_predict_names_a_class_of_each_picture(
    folder: Path, photographs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "predict", folder, *photographs(2))
    assert [len(one["top"]) for one in found["images"]] == [3, 3]


@pytest.mark.parametrize("form", ["tar", "triton", "oci", "hf"])
def test_package_writes_every_form(folder: Path, form: str, tmp_path: Path) -> None:
    out = tmp_path / ("packed.tar" if form == "tar" else "packed")
    assert run("package", folder, "--format", form, "--out", out) == 0
    if form == "triton":
        assert [one.name for one in out.iterdir()] == ["tiny"]
    if form == "tar":
        assert out.is_file()
    else:
        assert any(out.rglob("index.json" if form == "oci" else "*.onnx"))


def test_compare_finds_a_build_equal_to_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", folder, folder, "--max-drop", 0) == 0
    assert "equal" in capsys.readouterr().out


def test_parity_asks_for_the_module(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(capsys, "was built from a bare ONNX file: parity needs the PyTorch model", "parity", folder)


def plan(folder: Path, model: Path, images: Path) -> Path:
    entry = {"name": str(model), "images": str(images), "mean": 0.5, "std": 0.5}
    recipes = [{"recipe": name, "set": [*QUICK, "reconstruction.iterations=0"]} for name in ("w8a8", "w4a8")]
    path = folder / "trial.yaml"
    path.write_text(json.dumps({"models": [entry], "recipes": recipes, "targets": ["onnxruntime-cpu"]}))
    return path


@pytest.mark.slow
def test_a_sweep_builds_it_with_each_recipe(
    bare_onnx: Path, photographs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plan(tmp_path, bare_onnx, photographs(4)[0].parent)
    found = document(capsys, "sweep", file, "--out", tmp_path / "swept")
    assert [cell["state"] for cell in found["cells"]] == ["done", "done"]
    built = sorted(path.parent.name for path in (tmp_path / "swept").glob("*/model.onnx"))
    assert len(built) == 2 and all(name.endswith(("tiny-w8a8", "tiny-w4a8")) for name in built)


def test_a_sweep_of_a_file_that_is_not_there_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plan(tmp_path, tmp_path / "none.onnx", tmp_path)
    expect_error(capsys, "no ONNX file", "sweep", file, "--out", tmp_path / "swept")
    assert not (tmp_path / "swept").exists()
