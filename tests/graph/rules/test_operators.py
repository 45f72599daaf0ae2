"""Operators that are not standard QDQ are errors; what cannot be judged is a note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir
import pytest

from fimaq_deploy.graph.rules.operators import attention_is_spelt_out, operators_are_standard, something_is_quantized
from fimaq_deploy.graph.rules.rule import RULES
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.target import find_target

RTX = find_target("tensorrt-rtx")


def of_one(kind: str, domain: str = "") -> Structure:
    node = ir.node(kind, [], domain=domain, name="it")
    graph = ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 21})
    return Structure(graph, 21, pairs=(), products=(), attentions=())


@pytest.mark.parametrize(
    ("kind", "domain"),
    [
        ("QLinearMatMul", ""),
        ("QLinearAdd", "com.microsoft"),
        ("MatMulInteger", ""),
        ("ConvInteger", ""),
        ("DynamicQuantizeLinear", ""),
        ("FusedGelu", "com.microsoft"),
        ("QuantizeLinear", "com.microsoft"),
        ("Anything", "com.microsoft.nchwc"),
    ],
)
def test_operators_of_onnx_runtimes_kind_are_named(kind: str, domain: str) -> None:
    found = of_one(kind, domain)
    (place,) = operators_are_standard(found, RTX)
    assert place.at is found.graph[0] and place.tensor is found.graph[0].outputs[0]
    assert place.problem.startswith(f"{kind} is an operator of ONNX Runtime's kind: tensorrt-rtx reads")
    assert "QDQ" in place.remedy


@pytest.mark.parametrize(
    ("kind", "domain"), [("MatMul", ""), ("QuantizeLinear", "ai.onnx"), ("DequantizeLinear", ""), ("Gelu", "mine")]
)
def test_standard_operators_and_those_of_others_are_not(kind: str, domain: str) -> None:
    assert list(operators_are_standard(of_one(kind, domain), RTX)) == []


@pytest.mark.parametrize("kind", ["Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention"])
def test_attention_in_one_operator_is_a_note(kind: str) -> None:
    (place,) = attention_is_spelt_out(of_one(kind), RTX)
    assert place.problem == f"{kind} is one operator, what is inside is not judged"
    assert list(attention_is_spelt_out(of_one("Softmax"), RTX)) == []


def test_a_file_without_quantizers_is_a_note(judged: Callable[..., tuple[object, ...]], sketch: type) -> None:
    (place,) = something_is_quantized(of_one("Relu"), RTX)
    assert (place.at, place.tensor) == (None, None) and "neither QuantizeLinear nor DequantizeLinear" in place.problem
    plain, quantized = sketch(), sketch()
    for drawn, output, expected in [
        (plain, plain.node("Relu", "x"), {"nothing-quantized"}),
        (quantized, quantized.linear("x", 64), set()),
    ]:
        found = {finding.rule for finding in judged(drawn, output, "tensorrt-rtx")}
        assert found & {"nothing-quantized", "operator-format", "attention-operator"} == expected


def test_notes_hold_everywhere_and_the_error_where_a_target_names_it() -> None:
    no_rules = replace(RTX, name="plain", lint_rules=frozenset())
    for name in ("attention-operator", "nothing-quantized"):
        assert RULES[name].severity == "note" and RULES[name].holds_for(no_rules)
    rule = RULES["operator-format"]
    assert rule.severity == "error" and rule.holds_for(RTX) and not rule.holds_for(no_rules)
