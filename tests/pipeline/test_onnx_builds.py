from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy import UserError, build, verify_artifact
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.pipeline.onnx_builds import GIVEN

HALF = Preprocessing(mean=(0.5,), std=(0.5,))
QUICK = ("scale_search.candidates=8", "reconstruction.images=12")


@pytest.fixture(scope="module")
def built(bare_onnx: Path, bare_images: np.ndarray, tmp_path_factory) -> BuildResult:
    made = build(
        str(bare_onnx),
        images=bare_images,
        eval_images=(bare_images, np.arange(len(bare_images)) % 20),
        preprocessing=HALF,
        settings=QUICK,
        targets="onnxruntime-cpu",
        out=tmp_path_factory.mktemp("built") / "tiny",
        replay=2,
    )
    assert made is not None
    return made


def test_every_row_is_compared_with_the_file_as_it_was_given(built: BuildResult) -> None:
    rows = {row.id: row for row in built.report.rows}
    assert list(rows) == [GIVEN, "onnx-fp32", "onnx-reference", "onnxruntime-cpu"]
    assert rows[GIVEN].precision == "FP32" and rows["onnx-fp32"].original.agreement == 100
    assert rows["onnxruntime-cpu"].original.to == GIVEN and rows["onnxruntime-cpu"].deployed
    assert rows["onnxruntime-cpu"].latency and rows["onnx-reference"].accuracy.top1 is not None


def test_the_report_says_what_was_learned_and_what_a_module_would_give_more(built: BuildResult) -> None:
    assert len(built.report.blocks) == 8 and all(one.loss_after <= one.loss_before for one in built.report.blocks)
    notes = " ".join(built.report.data.notes)
    assert "with the PyTorch model whole blocks would be learned" in notes and "blocks were not compared" in notes


def test_the_folder_is_a_build_like_any_other(built: BuildResult, bare_images: np.ndarray) -> None:
    assert verify_artifact(built.out).good
    manifest = json.loads((built.out / "manifest.json").read_text())
    assert manifest["contract"]["preprocessing"]["mean"] == [0.5] * 3
    assert "--weights" not in manifest["command"] and "--mean 0.5" in manifest["command"]
    assert not (built.out / "quantized.safetensors").exists()


@pytest.mark.slow
def test_the_contract_in_a_file_says_how_images_are_prepared(built: BuildResult, bare_images, tmp_path) -> None:
    again = build(
        str(built.out / "model.fp32.onnx"),
        images=bare_images,
        settings=(*QUICK, "reconstruction.iterations=0"),
        targets="onnxruntime-cpu",
        out=tmp_path / "again",
        replay=0,
    )
    assert again is not None and again.report.rows[1].original.largest_difference < 1e-5
    assert again.report.blocks == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "does not say how its images are prepared: give --mean and --std"),
        ({"weights": "random"}, "an ONNX file brings its own"),
        ({"sensitivity": 2}, "--sensitivity needs the PyTorch model"),
        ({"preprocessing": HALF, "images": None}, "brings no images: give some with --images"),
        (
            {"preprocessing": HALF, "recipe": "w4a16", "opset": 19},
            "--opset 19: .* came with opset 21: take that or newer",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_line(options: dict, message: str, bare_onnx: Path, bare_images, tmp_path) -> None:
    common = {"images": bare_images, "out": tmp_path / "out", "targets": "onnxruntime-cpu"}
    with pytest.raises(UserError, match=message):
        build(str(bare_onnx), **{**common, **options})
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_a_line(tmp_path: Path, bare_images) -> None:
    with pytest.raises(UserError, match="no ONNX file"):
        build(str(tmp_path / "absent.onnx"), images=bare_images, out=tmp_path / "out", targets="onnxruntime-cpu")


def test_a_quantized_file_is_not_quantized_again(built: BuildResult, bare_images, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is quantized already"):
        build(str(built.out / "model.onnx"), images=bare_images, out=tmp_path / "out", targets="onnxruntime-cpu")
