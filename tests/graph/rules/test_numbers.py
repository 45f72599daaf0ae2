"""Rules for the numbers of one tensor: a graph that breaks each, and the same graph mended."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

TENSORRT, CPU = "tensorrt-rtx", "onnxruntime-cpu"


def linear(sketch, **pair):
    """A Linear whose input pair is as asked."""
    return sketch.node("MatMul", sketch.quantized("x", **pair), sketch.weight(64, 64))


@pytest.mark.parametrize(
    ("rule", "target", "broken", "said"),
    [
        ("scale", TENSORRT, {"scale": 0.0}, "a scale is 0"),
        ("scale", CPU, {"scale": np.nan}, "a scale is nan"),
        ("integer-type", TENSORRT, {"zero": np.uint8(0)}, "clips at 127"),
        ("integer-type", TENSORRT, {"zero": None}, "integers are UINT8"),
        ("integer-type", TENSORRT, {"zero": np.int16(0)}, "integers are INT16"),
        ("zero-point", TENSORRT, {"zero": np.int8(-3)}, "zero point -3"),
        ("no-zero-point", CPU, {"zero": None, "output_dtype": 3}, "INT8 without a zero point"),
        ("channel-activation", TENSORRT, {"scale": np.full(64, 0.05), "zero": np.zeros(64, np.int8), "axis": 2}, "64"),
        ("channel-activation", CPU, {"scale": np.full(64, 0.05), "zero": np.zeros(64, np.int8), "axis": 2}, "64"),
    ],
)
def test_a_pair_that_breaks_a_rule(sketch, judged, rule, target, broken, said):
    drawn = sketch(floats=np.float16 if target == TENSORRT else np.float32)
    findings = judged(drawn, linear(drawn, **broken), target)
    assert [finding.rule for finding in findings] == [rule]
    assert findings[0].severity == "error"
    assert findings[0].node.startswith("QuantizeLinear")
    assert findings[0].tensor == "x"
    assert said in findings[0].problem
    assert findings[0].remedy


@pytest.mark.parametrize("target", ["tensorrt", TENSORRT, CPU, "onnxruntime-cuda", "openvino-cpu"])
def test_a_symmetric_int8_linear_is_clean_everywhere(sketch, judged, target):
    """But for a runtime that has no integer kernels at all."""
    drawn = sketch(floats=np.float32 if target in (CPU, "openvino-cpu") else np.float16)
    found = [finding.rule for finding in judged(drawn, linear(drawn), target)]
    assert found == (["no-integer-kernel"] if target == "onnxruntime-cuda" else [])


@pytest.mark.parametrize(("target", "noted"), [(CPU, []), ("openvino-cpu", [("costly-zero-point", "note")])])
def test_unsigned_activations_are_for_cpus_and_their_zero_point_costs_time_on_one(sketch, judged, target, noted):
    found = {}
    for zero in (131, 0):
        drawn = sketch(floats=np.float32)
        found[zero] = judged(drawn, linear(drawn, zero=np.uint8(zero)), target)
    assert [(finding.rule, finding.severity) for finding in found[131]] == noted and not found[0]


def test_a_scale_that_is_computed(sketch, judged):
    drawn = sketch()
    largest = drawn.node("ReduceMax", drawn.node("Abs", "x"), keepdims=0)
    scale, zero = drawn.node("Div", largest, drawn.scale(127)), drawn.store(np.int8(0))
    integers = drawn.node("QuantizeLinear", "x", scale, zero)
    y = drawn.node("MatMul", drawn.node("DequantizeLinear", integers, scale, zero), drawn.weight(64, 64))
    assert [finding.rule for finding in judged(drawn, y, TENSORRT)] == ["dynamic-scale"]


@pytest.mark.parametrize(("floats", "said"), [(np.float32, "FP32 around the integers at 2 of 2"), (np.float16, None)])
def test_the_float_type_is_the_targets(sketch, judged, floats, said):
    drawn = sketch(floats=floats)
    findings = judged(drawn, linear(drawn), TENSORRT)
    assert [(f.rule, f.severity) for f in findings] == ([("precision", "warning")] if said else [])
    assert said is None or said in findings[0].problem


def test_float32_may_be_quantized_where_float16_comes_out(sketch, judged):
    drawn = sketch()
    scale, zero = drawn.store(np.float32(0.05)), drawn.store(np.int8(0))
    integers = drawn.node("QuantizeLinear", drawn.node("Cast", "x", to=TensorProto.FLOAT), scale, zero)
    x = drawn.node("DequantizeLinear", integers, drawn.scale(0.05), zero)
    assert judged(drawn, drawn.node("MatMul", x, drawn.weight(64, 64)), TENSORRT) == ()


def test_half_precision_on_a_cpu_is_a_warning(sketch, judged):
    drawn = sketch(floats=np.float16)
    assert [(f.rule, f.severity) for f in judged(drawn, linear(drawn), CPU)] == [("precision", "warning")]


def int4(sketch):
    return sketch.node("MatMul", "x", sketch.weight_int4(64, 64))


@pytest.mark.parametrize(
    ("draw", "floats", "opset", "said"),
    [(int4, np.float32, 19, "INT4"), (linear, np.float16, 17, "FP16"), (linear, np.float32, 11, "each channel")],
)
def test_an_opset_that_does_not_know_the_types(sketch, judged, draw, floats, opset, said):
    for version, expected in ((opset, ["opset"]), (21, [])):
        drawn = sketch(floats=floats, opset=version)
        target = "onnxruntime-cuda" if floats is np.float32 else TENSORRT
        others = ("no-integer-kernel", "precision")  # of a target that computes in FP16
        findings = [found for found in judged(drawn, draw(drawn), target) if found.rule not in others]
        assert [finding.rule for finding in findings] == expected
        assert not findings or said in findings[0].problem
