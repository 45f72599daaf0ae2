"""Rules for 8- and 4-bit floats: a graph that breaks each, and the same graph mended."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from fixtures.versions import names_opset_25
from onnx import helper

TENSORRT, CPU = "tensorrt-rtx", "onnxruntime-cpu"
E4M3, E5M2 = onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2


def rules(findings):
    return [(finding.rule, finding.severity) for finding in findings]


def quantized(drawn, x, kind=E4M3):
    return drawn.quantized(x, zero=helper.make_tensor("", kind, [], [0.0]))


def weight(drawn, rows=64, columns=128, block=None, powers=False):
    values = drawn.random.standard_normal((rows, columns)) * 100
    stored = drawn.store(helper.make_tensor("", E4M3, (rows, columns), values.flatten()), "weight")
    if block is None:
        return drawn.node("DequantizeLinear", stored, drawn.scale(np.full(columns, 0.01)), axis=1)
    scales = np.full((rows // block, columns), 0.0078125)
    scale = drawn.scale(scales)
    if powers:
        codes = scales.astype(ml_dtypes.float8_e8m0fnu).tobytes()
        scale = drawn.store(onnx.TensorProto(data_type=24, dims=scales.shape, raw_data=codes), "scale")
    typed = {"output_dtype": onnx.TensorProto.FLOAT16} if powers else {}
    return drawn.node("DequantizeLinear", stored, scale, axis=0, block_size=block, **typed)


def test_products_of_floats_with_a_scale_a_channel_are_as_they_should_be(sketch, judged):
    drawn = sketch()
    assert rules(judged(drawn, drawn.node("MatMul", quantized(drawn, "x"), weight(drawn)), TENSORRT)) == []


def test_a_target_without_kernels_for_floats_says_so(sketch, judged):
    drawn = sketch(floats=np.float32)
    y = drawn.node("MatMul", quantized(drawn, "x"), weight(drawn))
    assert ("float-kernel", "warning") in rules(judged(drawn, y, CPU))


def test_blocks_of_floats_do_not_compile(sketch, judged):
    drawn = sketch()
    drawn.width = 128
    y = drawn.node("MatMul", quantized(drawn, "x"), weight(drawn, 128, block=128))
    assert rules(judged(drawn, y, TENSORRT)) == [("fp8-blocks", "error")]


@names_opset_25
def test_scales_that_are_powers_of_two_are_emulated(sketch, judged):
    drawn = sketch(opset=25)
    y = drawn.node("MatMul", quantized(drawn, "x"), weight(drawn, block=32, powers=True))
    assert ("emulated-mxfp8", "error") in rules(judged(drawn, y, TENSORRT))


def test_other_floats_of_8_bits_have_no_kernel(sketch, judged):
    drawn = sketch()
    y = drawn.node("MatMul", quantized(drawn, "x", E5M2), weight(drawn))
    assert ("float-type", "error") in rules(judged(drawn, y, TENSORRT))


@pytest.mark.parametrize("floats_first", [True, False])
def test_no_kernel_multiplies_integers_and_floats(sketch, judged, floats_first):
    drawn = sketch()
    operands = (quantized(drawn, "x"), drawn.weight(64, 128)) if floats_first else (drawn.quantized("x"), weight(drawn))
    assert rules(judged(drawn, drawn.node("MatMul", *operands), TENSORRT)) == [("mixed-product", "error")]


def test_floats_need_an_opset_that_has_them(sketch, judged):
    drawn = sketch(opset=17, floats=np.float32)
    y = drawn.node("MatMul", quantized(drawn, "x"), weight(drawn))
    found = judged(drawn, y, TENSORRT)
    assert any(one.rule in {"opset", "unloadable"} and one.severity == "error" for one in found)
