"""Rules for the graph as a whole: operators that are not standard QDQ, and what cannot be judged."""

from __future__ import annotations

from fimaq_deploy.graph.rules.rule import Found, Place, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.target import Target

_INTEGERS_IN_ONE_OPERATOR = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger"})
_ATTENTION_OPERATORS = frozenset({"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention"})


@rule("operator-format")
def operators_are_standard(found: Structure, target: Target) -> Found:
    for node in found.graph:
        if (
            node.op_type.startswith("QLinear")
            or node.op_type in _INTEGERS_IN_ONE_OPERATOR
            or "microsoft" in node.domain
        ):
            yield Place(
                node,
                node.outputs[0],
                f"{node.op_type} is an operator of ONNX Runtime's kind: {target.name} reads integers only through "
                "QuantizeLinear and DequantizeLinear of standard ONNX",
                "quantize in QDQ format, statically (in quantize_static: QuantFormat.QDQ), at opset 21",
            )


@rule("attention-operator", "note", everywhere=True)
def attention_is_spelt_out(found: Structure, target: Target) -> Found:
    for node in found.graph:
        if node.op_type in _ATTENTION_OPERATORS:
            yield Place(node, node.outputs[0], f"{node.op_type} is one operator, what is inside is not judged", "")


@rule("nothing-quantized", "note", everywhere=True)
def something_is_quantized(found: Structure, target: Target) -> Found:
    if not found.pairs:
        yield Place(None, None, "the file has neither QuantizeLinear nor DequantizeLinear", "")
