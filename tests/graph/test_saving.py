"""Files whose numbers are too many for one message: beside it, whole, and read by everything here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import fimaq_deploy as fd
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import convert_fp_onnx, export_fp_onnx, trace
from fimaq_deploy.graph import saving
from fimaq_deploy.graph.inspection import integer_weights, load_model
from fimaq_deploy.graph.saving import copy_model, data_of, size_of, write_model
from fimaq_deploy.manifest import check_file


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "LARGEST_BYTES", 4096)


def answers(path: Path, images: torch.Tensor) -> Any:
    return fd.load_engine(path, optimisations=False)(images.numpy())


def outside(path: Path) -> set[str]:
    """Where the tensors lie that are not in the file."""
    stored = onnx.load(path, load_external_data=False).graph.initializer
    return {entry.value for one in stored for entry in one.external_data if entry.key == "location"}


@pytest.mark.parametrize("weights", [4, 8])
def test_every_file_is_what_it_would_be_alone(
    weights: int, tiny_vit: Any, random_images: Any, quick_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = tiny_vit(embed_dim=64), random_images(8)
    recipe = quick_recipe(reconstruction={"iterations": 0}, weights={"bits": weights})
    traced = trace(fd.quantize(model, images, recipe, ["onnxruntime-cpu", "tensorrt-rtx"]))
    alone = {
        target: traced.write(tmp_path / f"{target}.onnx", target) for target in ("onnxruntime-cpu", "tensorrt-rtx")
    }
    monkeypatch.setattr(saving, "LARGEST_BYTES", 4096)
    for target, file in alone.items():
        path = traced.write(tmp_path / "apart" / "model.onnx", target)
        assert outside(path) == {"model.onnx.data"} and not data_of(file).exists()
        assert path.stat().st_size < file.stat().st_size < size_of(path)
        onnx.checker.check_model(str(path))
        theirs = integer_weights(file)
        assert all(np.array_equal(theirs[name], one) for name, one in integer_weights(path).items())
    path = traced.write(tmp_path / "apart" / "model.onnx", "onnxruntime-cpu")
    np.testing.assert_array_equal(answers(path, images), answers(alone["onnxruntime-cpu"], images))


@pytest.mark.usefixtures("few")
def test_a_file_is_made_from_one_with_its_numbers_beside_it(
    tiny_vit: Any, random_images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, images = export_fp_onnx(tiny_vit(), tmp_path / "model.onnx"), random_images(2)
    half = convert_fp_onnx(source, tmp_path / "half.onnx", target="tensorrt-rtx")
    assert outside(half) == {"half.onnx.data"}
    (tmp_path / "copy").mkdir()
    copy_model(source, tmp_path / "copy" / "model.onnx")
    np.testing.assert_array_equal(answers(tmp_path / "copy" / "model.onnx", images), answers(source, images))
    monkeypatch.setattr(saving, "LARGEST_BYTES", 2**31)
    model = load_model(source)
    path = write_model(model, tmp_path / "whole.onnx")
    assert outside(path) == set()
    data_of(source).unlink()
    np.testing.assert_array_equal(answers(path, images), answers(tmp_path / "copy" / "model.onnx", images))
    with pytest.raises(UserError, match=r"keeps its numbers in .*model.onnx.data, which is missing"):
        load_model(source)


def test_what_lay_beside_an_earlier_file_goes_with_it(tiny_vit: Any, tmp_path: Path, few: None) -> None:
    path = export_fp_onnx(tiny_vit(), tmp_path / "model.onnx")
    assert data_of(path).is_file()
    model = ir.load(path)
    model.graph.initializers.clear()
    write_model(model, path)
    assert not data_of(path).exists() and size_of(path) == path.stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_build_names_the_data_in_its_manifest(tmp_path: Path) -> None:
    """Compiled, run, compared block by block, and refused where the data is another one."""
    recipe = fd.Recipe.load("w4a8").replace(reconstruction={"iterations": 2}, tuning={"iterations": 0})
    made = fd.build("vit_digits", recipe=recipe, targets=("onnxruntime-cpu", "tensorrt-rtx"), out=tmp_path / "out")
    files = json.loads((made.out / "manifest.json").read_text())["files"]
    for name in ("model.onnx", "model.fp32.onnx", "model.fp16.onnx", "model.tensorrt-rtx.onnx"):
        assert f"{name}.data" in files
    row = made.report.row("onnxruntime-cpu")
    assert row is not None and row.size_bytes == size_of(made.out / "model.onnx")
    assert "unloadable" not in {one.rule for one in fd.lint(made.out / "model.onnx", "onnxruntime-cpu")}
    data_of(made.out / "model.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match=r"model\.onnx\.data"):
        check_file(made.out / "model.onnx")
