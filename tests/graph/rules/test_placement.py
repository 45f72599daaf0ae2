"""Rules for where pairs stand and which operators a target reads."""

from __future__ import annotations

import numpy as np
import pytest

TENSORRT, CPU = "tensorrt-rtx", "onnxruntime-cpu"


def rules(findings):
    return [(finding.rule, finding.severity) for finding in findings]


@pytest.mark.parametrize("idle", [True, False])
def test_a_pair_that_only_a_residual_add_reads(sketch, judged, idle):
    drawn = sketch()
    skip = drawn.quantized("x") if idle else "x"
    y = drawn.node("Add", skip, drawn.linear("x", 64))
    assert rules(judged(drawn, y, TENSORRT)) == ([("residual", "warning")] if idle else [])


@pytest.mark.parametrize(("operator", "idle"), [("Gelu", True), ("Softmax", True), ("MatMul", False)])
def test_a_pair_that_only_a_float_operator_reads(sketch, judged, operator, idle):
    drawn = sketch(floats=np.float32)
    x = drawn.quantized("x")
    y = drawn.node(operator, x, drawn.weight(64, 64)) if operator == "MatMul" else drawn.node(operator, x)
    findings = judged(drawn, drawn.linear(y, 64), CPU)
    assert rules(findings) == ([("round-trip", "warning")] if idle and operator != "Softmax" else [])


def test_a_softmax_whose_result_is_not_quantized_runs_in_floats(sketch, judged):
    drawn = sketch(floats=np.float32)
    y = drawn.node("Add", drawn.node("Softmax", drawn.quantized("x")), drawn.linear("x", 64))
    assert rules(judged(drawn, y, CPU)) == [("round-trip", "warning")]


@pytest.mark.parametrize(("columns", "tiny"), [(10, True), (16, False)])
def test_tiny_products(sketch, judged, columns, tiny):
    drawn = sketch(floats=np.float32)
    findings = judged(drawn, drawn.linear(drawn.node("Relu", "x"), columns), CPU)
    assert rules(findings) == ([("tiny-product", "warning")] if tiny else [])
    drawn = sketch(floats=np.float32)
    assert judged(drawn, drawn.linear("x", columns), CPU) == (), "a patch embedding"
    drawn = sketch()
    assert judged(drawn, drawn.linear("x", columns), TENSORRT) == ()


def moved(drawn, *kinds):
    """x through Transpose and the other kinds of node, then a Linear."""
    x = "x"
    for kind in kinds:
        if kind == "pair":
            x = drawn.quantized(x)
        elif kind == "Transpose":
            x = drawn.node("Transpose", x, perm=(0, 2, 1))
        else:
            x = drawn.node("Concat", x, x, axis=1)
    return drawn.node("MatMul", x, drawn.weight(drawn.tokens if "Transpose" in kinds else 64, 64))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("pair", "Transpose"), "refuses its own rewrite"),
        (("Transpose", "pair"), None),
        (("pair", "Concat"), "runs in floating point"),
        (("Concat", "pair"), None),
    ],
)
def test_integers_that_move_on_a_cpu(sketch, judged, kinds, said):
    drawn = sketch(floats=np.float32)
    findings = judged(drawn, moved(drawn, *kinds), CPU)
    assert rules(findings) == ([("moved-integers", "error")] if said else [])
    assert said is None or said in findings[0].problem


def test_integers_that_move_before_opset_21_are_left_to_the_runtime(sketch, judged):
    drawn = sketch(floats=np.float32, opset=20)
    assert judged(drawn, moved(drawn, "pair", "Transpose"), CPU) == ()


@pytest.mark.parametrize("operator", ["MatMulInteger", "QLinearMatMul"])
def test_operators_that_are_not_qdq(sketch, judged, operator):
    drawn = sketch()
    scale, zero = drawn.scale(0.05), drawn.store(np.int8(0))
    x = drawn.node("QuantizeLinear", "x", scale, zero)
    weight = drawn.store(np.ones((64, 64), np.int8))
    if operator == "MatMulInteger":
        y = drawn.node("Cast", drawn.node(operator, x, weight), to=10)
    else:
        y = drawn.node(operator, x, scale, zero, weight, scale, zero, scale, zero)
        y = drawn.node("DequantizeLinear", y, scale, zero)
    assert ("operator-format", "error") in rules(judged(drawn, y, TENSORRT))
    assert "operator-format" not in {finding.rule for finding in judged(drawn, y, CPU)}


def test_a_file_without_pairs_gets_a_note(sketch, judged):
    drawn = sketch()
    (finding,) = judged(drawn, drawn.node("Relu", "x"), TENSORRT)
    assert (finding.rule, finding.severity, finding.node) == ("nothing-quantized", "note", "")


@pytest.mark.parametrize(("target", "told"), [("onnxruntime-cuda", True), (CPU, False), (TENSORRT, False)])
def test_products_where_the_runtime_multiplies_no_integers(sketch, judged, target, told):
    drawn = sketch()
    y = drawn.node("MatMul", drawn.node("Relu", drawn.linear("x", 64)), drawn.node("Transpose", "x", perm=(0, 2, 1)))
    found = [finding for finding in judged(drawn, y, target) if finding.rule == "no-integer-kernel"]
    assert [finding.severity for finding in found] == (["warning"] if told else [])
    assert all("1 of 2 products" in finding.problem for finding in found)


def test_packed_weights_need_no_integer_kernel(sketch, judged):
    drawn = sketch()
    y = drawn.node("MatMul", drawn.node("Relu", "x"), drawn.weight_int4(64, 64))
    assert "no-integer-kernel" not in {finding.rule for finding in judged(drawn, y, "onnxruntime-cuda")}
