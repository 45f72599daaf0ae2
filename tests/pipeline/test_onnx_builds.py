from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.bare_onnx import HALF, QUICK, write_bare

from fimaq_deploy import UserError, build, load_engine, package, verify_artifact
from fimaq_deploy.graph import saving
from fimaq_deploy.graph_calibration.intake import read_network
from fimaq_deploy.measure.tasks import Traits
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.pipeline.onnx_builds import GIVEN, traits_of_file


@pytest.fixture
def built(built_from_onnx: BuildResult) -> BuildResult:
    return built_from_onnx


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


def test_the_contract_in_a_file_says_what_its_outputs_are(built: BuildResult, bare_onnx: Path) -> None:
    traits = traits_of_file(read_network(str(built.out / "model.fp32.onnx")))
    kinds = {one.name: one.task for one in built.report.outputs}
    assert traits.kinds == kinds and set(kinds.values()) == {"classes"}
    assert traits_of_file(read_network(str(bare_onnx))) == Traits()


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


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 21])
def test_numbers_too_many_for_one_file_lie_beside_it_on_the_whole_road(
    opset: int, bare_images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model over 2 GB, with the limit where a small one reaches it: before, behind and between."""
    source = tmp_path / "large.onnx"
    whole = onnx.load(write_bare(tmp_path / "whole.onnx", opset=opset))
    onnx.save(whole, source, save_as_external_data=True, location="large.weights", size_threshold=512)
    assert (tmp_path / "large.weights").stat().st_size > source.stat().st_size
    monkeypatch.setattr(saving, "LARGEST_BYTES", 4096)
    common = {"images": bare_images, "preprocessing": HALF, "settings": QUICK, "replay": 2}
    targets = ("onnxruntime-cpu", "tensorrt-rtx")
    built = build(str(source), targets=targets, out=tmp_path / "built", embed_preprocessing=True, **common)
    assert built is not None and not any(one.failed for one in built.report.targets)
    listed = json.loads((built.out / "manifest.json").read_text())["files"]
    for name in ("model.onnx", "model.fp32.onnx", "model.tensorrt-rtx.onnx"):
        beside = built.out / f"{name}.data"
        assert beside.name in listed and beside.stat().st_size > (built.out / name).stat().st_size / 2
    assert verify_artifact(built.out).good
    monkeypatch.undo()
    again = build(str(tmp_path / "whole.onnx"), targets=targets, out=tmp_path / "again", **common)
    assert again is not None
    images = bare_images[:2]
    for target in ("model.onnx", "model.fp32.onnx"):
        assert np.array_equal(*(load_engine(one.out / target)(images) for one in (built, again)))
    package(built.out, "tar", out=tmp_path / "packed.tar")
    with tarfile.open(tmp_path / "packed.tar") as packed:
        assert {"model.onnx", "model.onnx.data"} <= {Path(name).name for name in packed.getnames()}
    (built.out / "model.onnx.data").unlink()
    assert not verify_artifact(built.out).good


def test_a_source_without_what_lies_beside_it_is_a_line(
    bare_onnx: Path, bare_images: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(onnx.load(bare_onnx), path, save_as_external_data=True, location="large.weights", size_threshold=512)
    (tmp_path / "large.weights").unlink()
    with pytest.raises(UserError, match=r"large\.weights") as caught:
        build(str(path), images=bare_images, preprocessing=HALF, targets="onnxruntime-cpu", out=tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
