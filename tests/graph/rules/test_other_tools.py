"""Graphs that ONNX Runtime's own `quantize_static` writes: what lint finds in them is right, and its remedies help."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fixtures.versions import refuses_moved_integers
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.engines import load_engine
from fimaq_deploy.engines.tensorrt import build_engine
from fimaq_deploy.engines.tensorrt_library import not_buildable
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import export_fp_onnx
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.models.load import load_model

RTX, CPU = "tensorrt-rtx", "onnxruntime-cpu"
needs_rtx = pytest.mark.skipif(not_buildable(RTX) is not None, reason="TensorRT-RTX is not installed")

PRODUCTS = {"op_types_to_quantize": ["MatMul", "Gemm", "Conv"]}
SYMMETRIC = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
WITHOUT_ZERO_POINTS = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
BARE_RESULTS = {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", "Conv"]}
SETTINGS = {
    "default": {},
    "operators": {"quant_format": QuantFormat.QOperator},
    "products": PRODUCTS,
    "symmetric": {**PRODUCTS, **SYMMETRIC, "extra_options": WITHOUT_ZERO_POINTS},
    "mended": {**PRODUCTS, **SYMMETRIC, "extra_options": WITHOUT_ZERO_POINTS | BARE_RESULTS},
}
BLOCKS = 4


class Images(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter([{"images": images[:8]}, {"images": images[8:]}])

    def get_next(self):
        return next(self._batches, None)


@pytest.fixture(scope="module")
def images():
    return bundled_images("digits", "calibration", 16).take(16).numpy()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, images):
    """A file by the name of its settings, and the FP32 file for None; each is made once."""
    folder = tmp_path_factory.mktemp("static")
    original = export_fp_onnx(load_model("vit_digits"), folder / "fp32.onnx")

    def make(name: str | None) -> Path:
        path = original if name is None else folder / f"{name}.onnx"
        if not path.exists():
            quantize_static(str(original), str(path), Images(images), **SETTINGS[name])
        return path

    return make


def errors(path, target):
    return {finding.rule for finding in lint(path, target) if finding.severity == "error"}


@pytest.mark.parametrize(
    ("name", "rtx", "cpu"),
    [
        ("default", {"zero-point", "integer-bias", "quantized-scores"}, set()),
        ("operators", {"zero-point", "operator-format"}, {"moved-integers"}),
        ("products", {"zero-point", "integer-bias", "quantized-scores"}, {"moved-integers"}),
        ("symmetric", {"quantized-scores"}, {"moved-integers"}),
        ("mended", set(), set()),
    ],
)
def test_what_lint_finds(quantized, name, rtx, cpu):
    path = quantized(name)
    assert errors(path, RTX) == rtx
    assert errors(path, CPU) == cpu


def test_the_default_pays_for_pairs_that_gain_nothing(quantized):
    idle = Counter(finding.rule for finding in lint(quantized("default"), CPU))
    assert idle["quantized-constant"] > BLOCKS and idle["round-trip"] >= BLOCKS
    assert {f.rule for f in lint(quantized("mended"), CPU)} == {"tiny-product"}


@needs_rtx
@pytest.mark.parametrize(
    ("name", "why"), [("default", "Int32|[Zz]ero point"), ("operators", "QLinear"), ("products", "Int32")]
)
def test_rtx_refuses_what_lint_refuses(quantized, tmp_path, name, why):
    with pytest.raises(UserError, match=why):
        build_engine(quantized(name), tmp_path / "model.engine", RTX, compute_for=[(8, 9)])


@needs_rtx
@pytest.mark.parametrize(("name", "fused"), [("symmetric", 0), ("mended", BLOCKS)])
def test_rtx_fuses_attention_when_the_last_error_is_mended(quantized, tmp_path, name, fused):
    path = quantized(name)
    log = build_engine(path, tmp_path / "model.engine", RTX, compute_for=[(8, 9)], verbose=True).log
    layers = [line for line in log.splitlines() if "LayerType: " in line]
    gemms = [line for line in layers if "LayerType: gemm" in line]
    assert all("Datatype: Int8" in line for line in gemms)
    # Two products of attention are GEMMs of their own where it is not fused; the head is one more.
    assert len(gemms) == (4 if fused else 6) * BLOCKS + 1
    assert sum("_mha_" in line.split(",")[0] for line in layers) == fused


@refuses_moved_integers
@pytest.mark.parametrize("name", ["operators", "products", "symmetric"])
def test_onnxruntime_refuses_its_own_tools_file_as_lint_says(quantized, name):
    with pytest.raises(UserError, match="output_dtype INT8 does not match"):
        load_engine(quantized(name))


@pytest.mark.parametrize("name", ["default", "mended"])
def test_onnxruntime_runs_what_has_no_error(quantized, images, name):
    own, original = (load_engine(quantized(each))(images).argmax(1) for each in (name, None))
    assert np.mean(own == original) > 0.8
