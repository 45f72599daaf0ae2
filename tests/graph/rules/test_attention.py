"""Rules for attention, on a block with a fused or a split qkv projection."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

TENSORRT = "tensorrt-rtx"
ALL, NONE = ("q", "k", "v", "softmax"), ()


def rules(findings):
    return [(finding.rule, finding.severity) for finding in findings]


def found(sketch, judged, target=TENSORRT, width=64, tokens=16, **attention):
    drawn = sketch(width=width, tokens=tokens)
    return judged(drawn, drawn.attention(**attention), target)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_all_four_parts_within_the_envelope_are_clean(sketch, judged, fused, size):
    assert found(sketch, judged, width=2 * size, fused=fused) == ()


def test_unquantized_attention_behind_three_products_is_clean(sketch, judged):
    assert found(sketch, judged, fused=False, quantized=NONE) == ()


@pytest.mark.parametrize("missing", ALL)
def test_half_quantized_attention(sketch, judged, missing):
    (finding,) = found(sketch, judged, quantized=[part for part in ALL if part != missing])
    assert (finding.rule, finding.severity) == ("half-attention", "error")
    named = "the softmax output" if missing == "softmax" else missing
    assert f"not {named}: attention is not fused" in finding.problem
    assert finding.remedy == f"quantize {named} too"
    assert finding.node.startswith("Softmax")


def test_half_quantized_attention_outside_the_envelope_loses_its_pairs(sketch, judged):
    (finding,) = found(sketch, judged, width=96, quantized=("q", "k"))
    assert finding.remedy == "remove the quantizers of q and k"


@pytest.mark.parametrize(
    ("width", "tokens", "said"), [(96, 16, "head size 48 is not one of"), (64, 577, "577 tokens are more than 512")]
)
def test_quantized_attention_outside_the_envelope(sketch, judged, width, tokens, said):
    (finding,) = found(sketch, judged, width=width, tokens=tokens)
    assert (finding.rule, finding.severity) == ("attention-envelope", "error")
    assert said in finding.problem
    assert found(sketch, judged, width=width, tokens=tokens, fused=False, quantized=NONE) == ()


@pytest.mark.parametrize(("width", "remedy"), [(64, "quantize its result"), (96, "split it into three")])
def test_a_fused_qkv_without_a_pair_behind_it(sketch, judged, width, remedy):
    (finding,) = found(sketch, judged, width=width, quantized=NONE)
    assert (finding.rule, finding.severity) == ("qkv-output", "error")
    assert finding.node.startswith("MatMul") and finding.remedy.startswith(remedy)


def test_quantized_scores(sketch, judged):
    drawn = sketch()

    def around(name, value):
        return drawn.quantized(value, 0.1) if name == "scores" else value

    (finding,) = judged(drawn, drawn.attention(around=around), TENSORRT)
    assert (finding.rule, finding.severity) == ("quantized-scores", "error")
    assert finding.node.startswith("QuantizeLinear") and finding.tensor.startswith("MatMul")


def clipped(drawn, where):
    low, high = drawn.scale(0), drawn.scale(0.5)
    return lambda name, value: drawn.node("Clip", value, low, high) if name == where else value


@pytest.mark.parametrize(("where", "broken"), [("softmax", True), ("context", True), ("q", False), ("v", False)])
def test_a_clip_beside_attention(sketch, judged, where, broken):
    """Behind the softmax or the product with v it keeps attention from fusing, before q, k and v it does not."""
    drawn = sketch()
    findings = judged(drawn, drawn.attention(around=clipped(drawn, where)), TENSORRT)
    assert rules(findings) == ([("clipped-attention", "error")] if broken else [])


def test_a_clip_behind_unquantized_attention_changes_nothing(sketch, judged):
    drawn = sketch()
    y = drawn.attention(fused=False, quantized=NONE, around=clipped(drawn, "context"))
    assert judged(drawn, y, TENSORRT) == ()


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu", "onnxruntime-cuda"])
@pytest.mark.parametrize("quantized", [ALL, ("q", "k"), NONE])
def test_a_cpu_runs_every_product_by_itself(sketch, judged, target, quantized):
    drawn = sketch(floats=np.float32)
    assert [f for f in judged(drawn, drawn.attention(quantized=quantized), target) if f.severity == "error"] == []


def test_attention_in_one_operator_is_not_judged(sketch, judged):
    drawn = sketch()
    q, k, v = (drawn.quantized("x") for _ in "qkv")
    y = drawn.node("MultiHeadAttention", q, k, v, domain="com.microsoft", num_heads=2)
    assert ("attention-operator", "note") in rules(judged(drawn, y, "onnxruntime-cpu"))


def test_unknown_shapes_are_a_note(sketch, judged):
    drawn = sketch()

    def around(name, value):
        return drawn.node("Reshape", value, "shape") if name in ("q", "k", "v") else value

    output = drawn.attention(around=around)
    model = drawn.model(output)
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [4]))
    drawn.model = lambda _output: model
    assert rules(judged(drawn, output, TENSORRT)) == [("attention-envelope", "note")]
