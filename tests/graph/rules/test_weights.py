"""Rules for stored tensors: a graph that breaks each, and the same graph mended."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

TENSORRT, CPU, CUDA = "tensorrt-rtx", "onnxruntime-cpu", "onnxruntime-cuda"


def rules(findings):
    return [(finding.rule, finding.severity) for finding in findings]


def drawn_for(sketch, target):
    return sketch(floats=np.float16 if "tensorrt" in target else np.float32)


@pytest.mark.parametrize("target", [TENSORRT, CPU])
@pytest.mark.parametrize(("axis", "expected"), [(0, [("weight-axis", "error")]), (1, [])])
def test_weight_scales_run_along_the_output(sketch, judged, target, axis, expected):
    drawn = drawn_for(sketch, target)
    y = drawn.node("MatMul", drawn.quantized("x"), drawn.weight(64, 128, axis=axis))
    assert rules(judged(drawn, y, target)) == expected


@pytest.mark.parametrize(("transposed", "axis", "broken"), [(1, 0, False), (1, 1, True), (0, 1, False), (0, 0, True)])
def test_the_output_axis_of_a_gemm_depends_on_its_layout(sketch, judged, transposed, axis, broken):
    drawn = sketch()
    x = drawn.node("Reshape", "x", drawn.store(np.array([-1, 64])))
    shape = (128, 64) if transposed else (64, 128)
    y = drawn.node("Gemm", drawn.quantized(x), drawn.weight(*shape, axis=axis), transB=transposed)
    assert rules(judged(drawn, y, TENSORRT)) == ([("weight-axis", "error")] if broken else [])


@pytest.mark.parametrize(("axis", "broken"), [(0, False), (1, True)])
def test_a_transposed_weight_is_followed_to_its_layout(sketch, judged, axis, broken):
    drawn = sketch()
    weight = drawn.node("Transpose", drawn.weight(128, 64, axis=axis), perm=(1, 0))
    y = drawn.node("MatMul", drawn.quantized("x"), weight)
    assert rules(judged(drawn, y, TENSORRT)) == ([("weight-axis", "error")] if broken else [])


@pytest.mark.parametrize(
    ("block", "axis", "target", "said"),
    [
        (64, 0, TENSORRT, None),
        (128, 0, TENSORRT, None),
        (32, 0, "tensorrt", "blocks of 32"),
        (32, 0, TENSORRT, "blocks of 32"),
        (32, 0, CPU, None),
        (64, 1, "tensorrt", "along axis 1"),
        (64, 1, CPU, "along axis 1"),
    ],
)
def test_int4_blocks(sketch, judged, block, axis, target, said):
    drawn = drawn_for(sketch, target)
    drawn.width = 128
    findings = judged(drawn, drawn.node("MatMul", "x", drawn.weight_int4(128, 128, block, axis)), target)
    severity = "warning" if target == TENSORRT else "error"
    assert rules(findings) == ([("int4-layout", severity)] if said else [])
    assert said is None or said in findings[0].problem
    assert said is None or findings[0].tensor.startswith("weight")


def convolution(drawn, quantized):
    kernel = drawn.node("Unsqueeze", drawn.weight_int4(64, 64, block=None), drawn.store(np.array([2])))
    x = drawn.node("Transpose", "x", perm=(0, 2, 1))
    return drawn.node("Conv", drawn.quantized(x) if quantized else x, kernel)


@pytest.mark.parametrize(("quantized", "severity"), [(True, "error"), (False, "warning")])
def test_int4_in_a_convolution(sketch, judged, quantized, severity):
    drawn = sketch()
    findings = judged(drawn, convolution(drawn, quantized), TENSORRT)
    assert rules(findings) == [("int4-layout", severity)]
    assert "convolution" in findings[0].problem


@pytest.mark.parametrize("target", [TENSORRT, CPU])
def test_int4_blocks_and_a_quantized_activation(sketch, judged, target):
    drawn = drawn_for(sketch, target)
    drawn.width = 128
    y = drawn.node("MatMul", drawn.quantized("x"), drawn.weight_int4(128, 128))
    assert rules(judged(drawn, y, target)) == [("int4-activation", "error")]


def test_int4_channels_and_a_quantized_activation(sketch, judged):
    """TensorRT casts them and runs INT8, ONNX Runtime does not (docs/log)."""
    for target, expected in ((CPU, [("int4-channels", "error")]), (TENSORRT, [])):
        drawn = drawn_for(sketch, target)
        y = drawn.node("MatMul", drawn.quantized("x"), drawn.weight_int4(64, 64, block=None, axis=1))
        assert rules(judged(drawn, y, target)) == expected


def test_int4_channels_behind_a_cast_are_integers_once_the_file_is_loaded(sketch, judged):
    drawn = drawn_for(sketch, CPU)
    dequantized = drawn.weight_int4(64, 64, block=None, axis=1)
    (node,) = [one for one in drawn.nodes if dequantized in one.output]
    node.input[0] = drawn.node("Cast", node.input[0], to=TensorProto.INT8)
    drawn.nodes.insert(drawn.nodes.index(node), drawn.nodes.pop())
    y = drawn.node("MatMul", drawn.quantized("x"), dequantized)
    assert rules(judged(drawn, y, CPU)) == []


@pytest.mark.parametrize("target", [TENSORRT, CPU])
def test_int8_in_blocks(sketch, judged, target):
    drawn = drawn_for(sketch, target)
    drawn.width = 128
    integers = drawn.store(np.ones((128, 128), np.int8))
    scale = drawn.scale(np.full((2, 128), 0.01))
    weight = drawn.node("DequantizeLinear", integers, scale, axis=0, block_size=64)
    assert rules(judged(drawn, drawn.node("MatMul", drawn.quantized("x"), weight), target)) == [
        ("int8-blocks", "error")
    ]


@pytest.mark.parametrize("target", [TENSORRT, CPU])
def test_a_quantized_input_meets_float_weights(sketch, judged, target):
    drawn = drawn_for(sketch, target)
    y = drawn.node("MatMul", drawn.quantized("x"), drawn.floating(64, 64))
    findings = judged(drawn, y, target)
    assert ("half-product", "error") in rules(findings)
    drawn = drawn_for(sketch, target)
    assert judged(drawn, drawn.node("MatMul", "x", drawn.floating(64, 64)), target)[0].rule == "nothing-quantized"


def test_an_integer_bias(sketch, judged):
    for bias, expected in ((True, [("integer-bias", "error")]), (False, [])):
        drawn = sketch()
        y = drawn.node("MatMul", drawn.quantized("x"), drawn.weight(64, 64))
        integers, scale = drawn.store(np.ones(64, np.int32)), drawn.scale(np.full(64, 0.0005))
        added = drawn.node("DequantizeLinear", integers, scale, axis=0) if bias else drawn.floating(64)
        findings = judged(drawn, drawn.node("Add", y, added), TENSORRT)
        assert rules(findings) == expected


def test_quantized_constants(sketch, judged):
    """A scalar is refused by TensorRT; a vector that no product reads is only idle."""
    for shape, found in (((), "scalar-constant"), ((64,), "quantized-constant")):
        drawn = sketch()
        stored, scale, zero = drawn.store(np.ones(shape, np.int8)), drawn.scale(0.1), drawn.store(np.int8(0))
        idle = drawn.node("DequantizeLinear", stored, scale, zero)
        y = drawn.node("MatMul", drawn.quantized("x"), drawn.weight(64, 64))
        findings = judged(drawn, drawn.node("Mul", y, idle), TENSORRT)
        assert found in {finding.rule for finding in findings}
