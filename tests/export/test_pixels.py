from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.artifacts import INFO
from PIL import Image

from fimaq_deploy.contract import KEY
from fimaq_deploy.engines import openvino
from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.pixels import embed_preprocessing
from fimaq_deploy.measure.latency import compare_latency
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.predictor import Classifier
from fimaq_deploy.runtime.preprocessing import Preparation

TARGETS = ["onnxruntime-cpu", "openvino-cpu"]


@pytest.fixture
def pixels(artifact: Path, tmp_path: Path) -> Path:
    return embed_preprocessing(artifact / "model.onnx", tmp_path / "model.pixels.onnx")


def test_the_file_says_that_it_takes_pixels(pixels: Path, artifact: Path) -> None:
    onnx.checker.check_model(onnx.load(pixels), full_check=True)
    own, source = contract_in(pixels), contract_in(artifact / "model.onnx")
    assert own is not None and source is not None
    assert own.pixels and own.input_shape == (None, 8, 8, 3) and own.input_name == "pixels"
    assert replace(own, pixels=False, input_name=source.input_name) == source


@pytest.mark.parametrize("target", TARGETS)
def test_pixels_give_what_prepared_images_give_in_every_bit(pixels: Path, artifact: Path, target: str) -> None:
    if target == "openvino-cpu" and openvino.unavailable():
        pytest.skip(str(openvino.unavailable()))
    raw = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    contract = INFO.contract()
    mean, std = (np.asarray(numbers, np.float32) for numbers in (contract.mean, contract.std))
    prepared = np.ascontiguousarray(((raw.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
    own = load_engine(pixels, target)(raw)
    assert np.array_equal(own, load_engine(artifact / "model.onnx", target)(prepared))


def test_a_classifier_takes_it_as_any_other(pixels: Path, artifact: Path, photographs: object) -> None:
    files = photographs(4)  # type: ignore[operator]
    assert Classifier(pixels).predict_all(files) == Classifier(artifact, target="onnxruntime-cpu").predict_all(files)


def test_it_is_timed_with_pixels_and_refuses_floats(pixels: Path) -> None:
    runner = load_engine(pixels)
    assert compare_latency({"": runner}, (2,), rounds=3)[0].p50_ms > 0
    with pytest.raises(UserError, match="expected uint8"):
        runner(np.zeros((1, 8, 8, 3), np.float32))


def test_the_preparation_for_it_ends_with_the_crop(pixels: Path) -> None:
    contract = contract_in(pixels)
    assert contract is not None
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    assert Preparation(contract)(picture).dtype == np.uint8


@pytest.fixture
def images(artifact: Path, tmp_path: Path) -> Path:
    return embed_preprocessing(artifact / "model.onnx", tmp_path / "model.images.onnx", resize=True)


def test_a_file_that_resizes_takes_images_as_they_are(images: Path, artifact: Path, photographs: object) -> None:
    onnx.checker.check_model(onnx.load(images), full_check=True)
    own = contract_in(images)
    assert own is not None and own.resizing is not None and own.input_shape == (None, None, None, 3)
    files = photographs(4)  # type: ignore[operator]
    found, exact = (Classifier(one, target="onnxruntime-cpu") for one in (images, artifact))
    found.warm_up()
    for one, other in zip(found.predict_all(files, top=1), exact.predict_all(files, top=1), strict=True):
        assert one.label == other.label and one.probability == pytest.approx(other.probability, abs=0.01)
    with pytest.raises(UserError, match="several sizes"):
        found.prepare(files)
    with pytest.raises(UserError, match="more than 8 bits"):
        found.prepare([Image.fromarray(np.zeros((9, 9), np.uint16))])


def test_what_does_not_resize_so_is_refused(images: Path) -> None:
    with pytest.raises(UserError, match="it does not resize as the file says"):
        Classifier(images, target="openvino-cpu")
    if openvino.unavailable() is None:
        with pytest.raises(UserError, match="a filter that OpenVINO ignores"):
            load_engine(images, "openvino-cpu")


def test_an_older_opset_is_refused(artifact: Path, tmp_path: Path) -> None:
    old = onnx.load(artifact / "model.onnx")
    old.opset_import[0].version = 17
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(UserError, match="opset 17 knows no antialias"):
        embed_preprocessing(tmp_path / "old.onnx", tmp_path / "again.onnx", resize=True)


def test_a_file_without_a_contract_or_with_pixels_is_refused(pixels: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes pixels already"):
        embed_preprocessing(pixels, tmp_path / "again.onnx")
    bare = onnx.load(pixels)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(UserError, match="has no contract"):
        embed_preprocessing(tmp_path / "bare.onnx", tmp_path / "again.onnx")
    assert KEY not in {one.key for one in bare.metadata_props}
