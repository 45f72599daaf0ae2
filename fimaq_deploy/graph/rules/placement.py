"""Rules for where QuantizeLinear and DequantizeLinear stand."""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.graph.products import Product, dequantized_products, operand, reads_one_row
from fimaq_deploy.graph.rules.rule import Found, Place, at_pair, listed, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import MOVES, PRODUCTS, QUANTIZERS, integer_type, producer, readers
from fimaq_deploy.target import Target

# What ONNX Runtime's optimiser carries integers through, and where it stops.
_CARRIED = frozenset({"Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_NOT_CARRIED = MOVES - _CARRIED - {"Expand", "Identity"}
_MEANS = frozenset({"GlobalAveragePool", "ReduceMean"})
# What may stand between a mean over tokens and the head that reads it.
_BEHIND_MEANS = MOVES | QUANTIZERS | {"Cast", "Clip", "LayerNormalization"}
# Operators with an integer form of their own where their result is quantized too.
_INTEGER_IF_REQUANTIZED = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax", "Where"}
)


@rule("residual", "warning")
def residuals_stay_floats(found: Structure, target: Target) -> Found:
    for pair in filter(lambda pair: pair.is_activation, found.pairs):
        ends = pair.readers()
        if ends and all(node.op_type == "Add" and _adds_activations(node) for node in ends):
            yield at_pair(
                pair,
                "only a residual Add reads this pair: it rounds the residual stream and saves no kernel",
                "remove QuantizeLinear and DequantizeLinear here",
            )


@rule("round-trip", "warning")
def quantized_tensors_meet_integer_kernels(found: Structure, target: Target) -> Found:
    for pair in filter(lambda pair: pair.is_activation, found.pairs):
        ends = pair.readers()
        if ends and all(_computes_in_floats(node) for node in ends):
            yield at_pair(
                pair,
                f"quantized and dequantized for {listed(node.op_type for node in ends)} alone, computed in floating "
                "point: two passes over the tensor and a rounding for nothing",
                "remove QuantizeLinear and DequantizeLinear here",
            )


@rule("tiny-product", "warning")
def tiny_products_stay_floats(found: Structure, target: Target) -> Found:
    least = target.integers.least_size
    for product in found.products:
        sizes = product.sizes
        if product.node.op_type == "Conv" or not product.is_integer or None in sizes or _reads_images(product, found):
            continue
        if min(size for size in sizes if size is not None) < least:
            yield Place(
                product.node,
                product.operands[1].stored or product.operands[1].value,
                f"a quantized product with K = {sizes[0]} and N = {sizes[1]}: below {least} the integer "
                "kernel gains less than quantizing its input costs",
                "leave it in floating point",
            )


@rule("pooled-head", "warning")
def heads_behind_a_mean_stay_floats(found: Structure, target: Target) -> Found:
    for product in found.products:
        weight = product.weight
        if weight is None or weight.dequantizer is None or not reads_one_row(product, found.graph):
            continue
        if behind_mean(product.activations[0].value):
            yield Place(
                product.node,
                product.activations[0].value,
                "a quantized product of one row an image, behind a mean over tokens: it compiles to more kernels than "
                "in floating point",
                "leave it in floating point",
            )


@rule("no-integer-kernel", "warning", targets=lambda target: not target.integers.native)
def integers_have_a_kernel(found: Structure, target: Target) -> Found:
    idle = dequantized_products(found.products)
    if idle:
        yield Place(
            idle[0].node,
            None,
            f"{len(idle)} of {len(found.products)} products read dequantized tensors: this runtime has no integer "
            "kernel behind Q/DQ, dequantizes in every run and multiplies floats, slower than a file without Q/DQ",
            "ship the original in half precision, or INT4 weights in blocks with float activations",
        )


@rule("moved-integers")
def integers_are_read_where_they_are_made(found: Structure, target: Target) -> Found:
    if found.opset < 21:
        return
    for pair in found.pairs:
        if not pair.is_activation or integer_type(pair.nodes[0]) is not ir.DataType.INT8:
            continue
        uses = (use.node for node in pair.dequantize for use in node.outputs[0].uses())
        for move in dict.fromkeys(node for node in uses if node.op_type in MOVES):
            if move.op_type in _CARRIED and not any(_is_quantized(output) for output in move.outputs):
                yield Place(
                    move,
                    move.inputs[0],
                    f"{move.op_type} of a dequantized INT8 tensor at opset 21: ONNX Runtime refuses its own rewrite "
                    "(output_dtype INT8 does not match y_zero_point type UINT8)",
                    f"put the {move.op_type} before QuantizeLinear",
                )
            elif move.op_type in _NOT_CARRIED and any(node.op_type in PRODUCTS for node in readers(move.outputs[0])):
                yield Place(
                    move,
                    move.inputs[0],
                    f"{move.op_type} between DequantizeLinear and a product, which therefore runs in floating point",
                    f"put the {move.op_type} before QuantizeLinear",
                )


def _reads_images(product: Product, found: Structure) -> bool:
    """Whether a product is a patch embedding, whose exact sums keep runtimes together from the start."""
    read = product.activations
    return bool(read) and _origin(read[0].value, MOVES | QUANTIZERS | {"Cast", "Clip"}) in found.graph.inputs


def behind_mean(value: ir.Value) -> bool:
    """Whether a value is a mean, moved, normalized or quantized."""
    node = producer(_origin(value, _BEHIND_MEANS))
    return node is not None and node.op_type in _MEANS


def _origin(value: ir.Value | None, passed: frozenset[str]) -> ir.Value | None:
    """What a value is made from, before the operators in `passed`."""
    while (node := producer(value)) is not None and node.op_type in passed:
        value = node.inputs[0]
    return value


def _adds_activations(add: ir.Node) -> bool:
    return all(value is not None and operand(value).is_activation for value in add.inputs)


def _computes_in_floats(node: ir.Node) -> bool:
    if node.op_type in PRODUCTS | QUANTIZERS:
        return False
    return node.op_type not in _INTEGER_IF_REQUANTIZED or not any(_is_quantized(value) for value in node.outputs)


def _is_quantized(value: ir.Value) -> bool:
    return any(use.node.op_type == "QuantizeLinear" for use in value.uses())
