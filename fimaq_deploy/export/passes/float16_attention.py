"""Quantized attention computes in float16, also where bfloat16 surrounds it.

Between the DequantizeLinears of q, k and v and the QuantizeLinear behind the product with v, nothing depends on the
float type outside. TensorRT-RTX 1.7.1 fuses Swin's INT8 attention with its bias only in float16, and float16 rounds an
eighth as coarsely. What makes the rest bfloat16, values beyond float16's range, cannot happen here: integers times a
scale are bounded, so every value in between is, whatever the image:

    |DQ(i)| <= s max|i - z|,   |A B| <= K |A| |B|,   softmax <= 1,   |a + b| <= |a| + |b|,   |a / b| <= |a| / min|b|

Attention whose bound float16 does not hold is left as it is, and so is one that other operators or a product with
stored weights take part in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import (
    has_integer_weights,
    is_operator,
    maker,
    numpy_of,
    optional_at,
    read_at,
    sizes,
    stored,
)

_HALF = ir.DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_SAME_NUMBERS = frozenset({"Clip", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_INSIDE = _SAME_NUMBERS | {"Add", "Div", "MatMul", "Mul", "Softmax"}


def obstacle(softmax: ir.Node) -> str | None:
    if softmax.outputs[0].dtype is not ir.DataType.FLOAT:
        return "it does not compute in float32"
    island, stranger = _island_of(softmax)
    if stranger is not None:
        return f"{stranger} stands between it and the integers around attention"
    largest = _largest_value(node for node in _graph(softmax) if node in island)
    return None if largest <= _LARGEST else f"values may reach {largest:g}, float16 holds {_LARGEST:g}"


def rewrite(graph: ir.Graph, softmax: ir.Node) -> None:
    """Make every float of the island float16. Constants are copied, for others may read them too."""
    island, _ = _island_of(softmax)
    for node in [node for node in graph if node in island]:  # a set has another order in each process
        for place, value in enumerate(node.inputs):
            constant = numpy_of(value)
            if value is not None and constant is not None and value.dtype is ir.DataType.FLOAT:
                half = stored(graph, f"{value.name}.float16", constant.astype(np.float16))
                node.replace_input_with(place, half)
        for output in node.outputs:
            if output.dtype is ir.DataType.FLOAT:
                output.type = ir.TensorType(_HALF)


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _island_of(softmax: ir.Node) -> tuple[set[ir.Node], str | None]:
    """The nodes between the integers around a softmax and the product that reads it, and what else is among them."""
    island, waiting = set[ir.Node](), [softmax]
    while waiting:
        node = waiting.pop()
        if node in island:
            continue
        if not is_operator(node, *_INSIDE, "DequantizeLinear", "QuantizeLinear") or has_integer_weights(node):
            return island, str(node.name)
        if node.outputs[0].is_graph_output():
            return island, f"the output {node.outputs[0].name}"
        island.add(node)
        waiting += _neighbours(node, softmax)
    return island, None


def _neighbours(node: ir.Node, softmax: ir.Node) -> Iterator[ir.Node]:
    """The nodes that share floats with a node, and the DequantizeLinears of the softmax's integers."""
    if node.op_type != "DequantizeLinear":
        makers = (maker(value) for value in node.inputs if value is not None and value.dtype is ir.DataType.FLOAT)
        yield from (found for found in makers if found is not None)
    if node.op_type != "QuantizeLinear" or node.inputs[0] is softmax.outputs[0]:
        yield from node.outputs[0].consumers()


def _largest_value(nodes: Iterator[ir.Node]) -> float:
    """What no value of an island can exceed, from its integers and constants. nodes: in execution order."""
    bounds: dict[ir.Value, float] = {}

    def bound(value: ir.Value) -> float:
        if value in bounds:
            return bounds[value]
        constant = numpy_of(value)
        return math.inf if constant is None else float(np.abs(constant).max(initial=0))

    for node in nodes:
        if node.op_type != "QuantizeLinear":
            bounds[node.outputs[0]] = _bound(node, [bound(value) for value in node.inputs if value is not None])
    return max(bounds.values())


def _bound(node: ir.Node, operands: list[float]) -> float:
    """Of the result of a node, from those of its operands."""
    if node.op_type == "DequantizeLinear":
        return operands[1] * _farthest(node)
    if node.op_type == "Softmax":
        return 1.0
    if node.op_type == "MatMul":
        length = sizes(read_at(node, 0))[-1]
        return operands[0] * operands[1] * (length if isinstance(length, int) else math.inf)
    if node.op_type == "Mul":
        return operands[0] * operands[1]
    if node.op_type == "Div":
        divisor = numpy_of(node.inputs[1])
        return math.inf if divisor is None or not divisor.all() else operands[0] / float(np.abs(divisor).min())
    return operands[0] + operands[1] if node.op_type == "Add" else operands[0]


def _farthest(dequantize: ir.Node) -> float:
    """How far the integers of a container can lie from the zero point."""
    zero_point, integers = numpy_of(optional_at(dequantize, 2)), read_at(dequantize, 0).dtype
    assert integers is not None
    limits = (ml_dtypes.finfo if integers.is_floating_point() else ml_dtypes.iinfo)(integers.numpy())
    zero = np.zeros(1) if zero_point is None else zero_point
    return max(float(np.abs(end - zero.astype(np.float64)).max()) for end in map(float, (limits.min, limits.max)))


attention_in_float16 = Rewrite("attention_in_float16", "Softmax", obstacle, rewrite)
