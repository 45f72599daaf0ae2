"""What the rules say about runtimes is what the runtimes do: graphs that break a rule, compiled or loaded, and mended.

TensorRT-RTX compiles without a GPU for compute capability 8.9; what it compiled is read from its layer plan.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from fixtures.versions import refuses_moved_integers

from fimaq_deploy.engines.tensorrt import build_engine
from fimaq_deploy.engines.tensorrt_library import not_buildable
from fimaq_deploy.errors import UserError

RTX, CPU = "tensorrt-rtx", "onnxruntime-cpu"
PARTS = ("q", "k", "v", "softmax")
needs_rtx = pytest.mark.skipif(not_buildable(RTX) is not None, reason="TensorRT-RTX is not installed")


@dataclass(frozen=True)
class Plan:
    """What a graph was compiled to."""

    kernels: int
    int8_gemms: int
    fused_attentions: int


@pytest.fixture
def compiled(tmp_path):
    def build(drawn, output):
        path = tmp_path / "sketch.onnx"
        onnx.save(drawn.model(output), path)
        log = build_engine(path, tmp_path / "sketch.engine", RTX, compute_for=[(8, 9)], verbose=True).log
        layers = [line for line in log.splitlines() if "LayerType: " in line]
        gemms = [line for line in layers if "LayerType: gemm" in line and "Datatype: Int8" in line]
        return Plan(len(layers), len(gemms), sum("_mha_" in line.split(",")[0] for line in layers))

    return build


def linear(drawn, **pair):
    return drawn.node("MatMul", drawn.quantized("x", **pair), drawn.weight(64, 64))


def int8_blocks(drawn):
    integers, scale = drawn.store(np.ones((64, 64), np.int8)), drawn.scale(np.full((2, 64), 0.01))
    weight = drawn.node("DequantizeLinear", integers, scale, axis=0, block_size=32)
    return drawn.node("MatMul", drawn.quantized("x"), weight)


def integer_bias(drawn):
    bias = drawn.node("DequantizeLinear", drawn.store(np.ones(64, np.int32)), drawn.scale(np.full(64, 0.001)), axis=0)
    return drawn.node("Add", linear(drawn), bias)


def scalar_constant(drawn):
    stored, scale, zero = drawn.store(np.int8(1)), drawn.scale(0.1), drawn.store(np.int8(0))
    return drawn.node("Mul", linear(drawn), drawn.node("DequantizeLinear", stored, scale, zero))


def integer_operator(drawn):
    x = drawn.node("QuantizeLinear", "x", drawn.scale(0.05), drawn.store(np.int8(0)))
    return drawn.node("Cast", drawn.node("MatMulInteger", x, drawn.store(np.ones((64, 64), np.int8))), to=10)


def int4_convolution(drawn):
    kernel = drawn.node("Unsqueeze", drawn.weight_int4(64, 64, block=None), drawn.store(np.array([2])))
    return drawn.node("Conv", drawn.quantized(drawn.node("Transpose", "x", perm=(0, 2, 1))), kernel)


REFUSED = {
    "scale": lambda drawn: linear(drawn, scale=0.0),
    "zero-point": lambda drawn: linear(drawn, zero=np.int8(3)),
    "integer-type": lambda drawn: linear(drawn, zero=np.int16(0)),
    "integer-bias": integer_bias,
    "scalar-constant": scalar_constant,
    "int8-blocks": int8_blocks,
    "int4-activation": lambda drawn: drawn.node("MatMul", drawn.quantized("x"), drawn.weight_int4(64, 64, 32)),
    "int4-layout": int4_convolution,
    "operator-format": integer_operator,
}


@needs_rtx
@pytest.mark.parametrize("rule", list(REFUSED))
def test_rtx_refuses(sketch, judged, compiled, rule):
    drawn = sketch()
    output = REFUSED[rule](drawn)
    assert rule in {finding.rule for finding in judged(drawn, output, RTX) if finding.severity == "error"}
    with pytest.raises(UserError, match="cannot compile"):
        compiled(drawn, output)


def dynamic(drawn):
    scale = drawn.node("Div", drawn.node("ReduceMax", drawn.node("Abs", "x"), keepdims=0), drawn.scale(127))
    zero = drawn.store(np.int8(0))
    x = drawn.node("DequantizeLinear", drawn.node("QuantizeLinear", "x", scale, zero), scale, zero)
    return drawn.node("MatMul", x, drawn.weight(64, 64))


FLOATING = {
    "channel-activation": lambda d: linear(d, scale=np.full(64, 0.05), zero=np.zeros(64, np.int8), axis=2),
    "weight-axis": lambda d: d.node("MatMul", d.quantized("x"), d.weight(64, 64, axis=0)),
    "half-product": lambda d: d.node("MatMul", d.quantized("x"), d.floating(64, 64)),
    "dynamic-scale": dynamic,
}


@needs_rtx
@pytest.mark.parametrize("rule", [None, *FLOATING])
def test_rtx_falls_back_to_floats(sketch, judged, compiled, rule):
    drawn = sketch()
    output = FLOATING.get(rule, linear)(drawn)
    assert rule in {None, *(finding.rule for finding in judged(drawn, output, RTX))}
    assert compiled(drawn, output).int8_gemms == (0 if rule else 1)


def pooled(drawn, quantized=True, pool="mean"):
    """A head, as Swin and ViT have it: 49 tokens of 768, a norm, and 1000 classes."""
    y = drawn.node("LayerNormalization", "x", drawn.floating(768), drawn.floating(768))
    if pool == "mean":
        row = drawn.node("ReduceMean", y, drawn.store(np.array([1])), keepdims=0)
    else:
        row = drawn.node("Gather", y, drawn.store(np.array(0)), axis=1)
    if quantized:
        return drawn.linear(row, 1000, 768)
    return drawn.node("Add", drawn.node("MatMul", row, drawn.floating(768, 1000)), drawn.floating(1000))


@needs_rtx
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_only_behind_a_mean_a_head_takes_more_kernels_in_integers(sketch, judged, compiled, pool):
    plans = {}
    for quantized in (True, False):
        drawn = sketch(width=768, tokens=49)
        output = pooled(drawn, quantized, pool)
        found = {finding.rule for finding in judged(drawn, output, RTX)}
        assert ("pooled-head" in found) == (quantized and pool == "mean")
        plans[quantized] = compiled(drawn, output)
    assert plans[True].int8_gemms == 1 and plans[False].int8_gemms == 0
    extra = plans[True].kernels - plans[False].kernels
    assert extra > 1 if pool == "mean" else extra <= 1


def clip(drawn, where):
    low, high = drawn.scale(0), drawn.scale(0.5)
    return lambda name, value: drawn.node("Clip", value, low, high) if name == where else value


ATTENTIONS = {
    "all": ({}, None),
    "none": ({"quantized": (), "fused": False}, None),
    "half": ({"quantized": PARTS[:3]}, "half-attention"),
    "softmax alone": ({"quantized": PARTS[3:]}, "half-attention"),
    "head of 48": ({"width": 96}, "attention-envelope"),
    "513 tokens": ({"tokens": 513}, "attention-envelope"),
    "512 tokens": ({"tokens": 512}, None),
    "clip": ({"around": lambda drawn: clip(drawn, "softmax")}, "clipped-attention"),
    "clip behind": ({"around": lambda drawn: clip(drawn, "context")}, "clipped-attention"),
    "clip before": ({"around": lambda drawn: clip(drawn, "q")}, None),
    "scores": (
        {"around": lambda drawn: lambda name, value: drawn.quantized(value, 0.1) if name == "scores" else value},
        "quantized-scores",
    ),
}


@needs_rtx
@pytest.mark.parametrize("name", list(ATTENTIONS))
def test_rtx_fuses_attention_where_no_rule_is_broken(sketch, judged, compiled, name):
    options, rule = ATTENTIONS[name]
    drawn = sketch(**{key: value for key, value in options.items() if key in ("width", "tokens")})
    if "around" in options:
        options = {"around": options["around"](drawn)}
    output = drawn.attention(**{key: value for key, value in options.items() if key not in ("width", "tokens")})
    assert {finding.rule for finding in judged(drawn, output, RTX)} == ({rule} if rule else set())
    assert compiled(drawn, output).fused_attentions == (0 if rule else 1)


@pytest.fixture
def loaded(tmp_path):
    """The operators that ONNX Runtime runs, and the result for a fixed input, with and without its optimiser."""

    def run(drawn, output):
        onnx.save(drawn.model(output), tmp_path / "sketch.onnx")
        x = np.random.default_rng(1).standard_normal((2, drawn.tokens, drawn.width)).astype(drawn.floats)
        results = []
        for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
            options = ort.SessionOptions()
            options.graph_optimization_level, options.log_severity_level = level, 4
            options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
            session = ort.InferenceSession(tmp_path / "sketch.onnx", options, providers=["CPUExecutionProvider"])
            results.append(session.run(None, {"x": x})[0])
        return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node), *results

    return run


def unsigned_attribute(drawn):
    return linear(drawn, zero=None, output_dtype=onnx.TensorProto.INT8)


def concatenated(drawn):
    x = drawn.quantized("x")
    return drawn.node("MatMul", drawn.node("Concat", x, x, axis=1), drawn.weight(64, 64))


def transposed(drawn):
    return drawn.node("MatMul", drawn.node("Transpose", drawn.quantized("x"), perm=(0, 2, 1)), drawn.weight(16, 64))


CPU_FLOATING = {
    "no-zero-point": unsigned_attribute,
    "channel-activation": FLOATING["channel-activation"],
    "half-product": FLOATING["half-product"],
    "int4-activation": REFUSED["int4-activation"],
    "int4-channels": lambda d: d.node("MatMul", d.quantized("x"), d.weight_int4(64, 64, block=None, axis=1)),
    "moved-integers": concatenated,
}


@pytest.mark.parametrize("rule", [None, *CPU_FLOATING])
def test_onnxruntime_falls_back_to_floats(sketch, judged, loaded, rule):
    drawn = sketch(floats=np.float32)
    output = CPU_FLOATING.get(rule, linear)(drawn)
    assert rule in {None, *(finding.rule for finding in judged(drawn, output, CPU))}
    assert ("MatMulIntegerToFloat" in loaded(drawn, output)[0]) == (rule is None)


@refuses_moved_integers
@pytest.mark.parametrize(("rule", "draw"), [("moved-integers", transposed), ("int8-blocks", int8_blocks)])
def test_onnxruntime_refuses(sketch, judged, loaded, rule, draw):
    drawn = sketch(floats=np.float32)
    output = draw(drawn)
    assert rule in {finding.rule for finding in judged(drawn, output, CPU)}
    with pytest.raises(Exception, match="FAIL"):
        loaded(drawn, output)


@pytest.mark.parametrize(
    ("opset", "floats", "draw"),
    [
        (17, np.float16, linear),
        (12, np.float32, linear),
        (20, np.float32, lambda d: d.node("MatMul", "x", d.weight_int4(64, 64))),
    ],
)
def test_onnxruntime_refuses_an_opset_that_is_too_low(sketch, judged, loaded, opset, floats, draw):
    drawn = sketch(floats=floats, opset=opset)
    output = draw(drawn)
    assert "opset" in {finding.rule for finding in judged(drawn, output, CPU)}
    with pytest.raises(Exception, match="INVALID_GRAPH"):
        loaded(drawn, output)


@pytest.mark.parametrize("axis", [0, 1])
def test_onnxruntime_takes_scales_of_input_channels_for_those_of_outputs(sketch, loaded, axis):
    drawn = sketch(floats=np.float32)
    scale = np.linspace(0.001, 0.02, 64)
    _, exact, optimised = loaded(
        drawn, drawn.node("MatMul", drawn.quantized("x"), drawn.weight(64, 64, axis=axis, scale=scale))
    )
    assert (np.abs(exact - optimised).max() < 1e-3 * exact.std()) == (axis == 1)
