"""Quantized attention computes in float16, also where bfloat16 surrounds it.

Between the DequantizeLinears of q, k and v and the QuantizeLinear behind the product with v, nothing depends on the
float type outside. TensorRT-RTX 1.7.1 fuses Swin's INT8 attention with its bias only in float16, and float16 rounds an
eighth as coarsely. What makes the rest bfloat16, values beyond float16's range, cannot happen here: integers times a
scale are bounded, so every value in between is, whatever the image. Attention whose bound float16 does not hold is left
as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.edit import numpy_of, stored

_HALF = ir.DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_SAME_NUMBERS = frozenset({"Clip", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_INSIDE = _SAME_NUMBERS | {"Add", "Div", "MatMul", "Mul", "Softmax"}


def float16_attention(graph: ir.Graph) -> None:
    """Give float16 to what lies between the integers of every attention. `graph` is float32."""
    for softmax in [node for node in graph if node.op_type == "Softmax"]:
        island = _island_of(softmax)
        if island is not None and _largest_value(node for node in graph if node in island) <= _LARGEST:
            _convert(graph, island)


def _island_of(softmax: ir.Node) -> set[ir.Node] | None:
    """The nodes between the integers around a softmax and the product that reads it; None where other nodes are."""
    island, waiting = set[ir.Node](), [softmax]
    while waiting:
        node = waiting.pop()
        if node in island:
            continue
        if node.op_type not in _INSIDE | {"DequantizeLinear", "QuantizeLinear"} or node.outputs[0].is_graph_output():
            return None
        island.add(node)
        waiting += _neighbours(node, softmax)
    return island


def _neighbours(node: ir.Node, softmax: ir.Node) -> Iterator[ir.Node]:
    """The nodes that share floats with a node, and the DequantizeLinears of the softmax's integers."""
    if node.op_type != "DequantizeLinear":
        makers = (value.producer() for value in node.inputs if value is not None and value.dtype is ir.DataType.FLOAT)
        yield from (maker for maker in makers if maker is not None)
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
        zero_point = numpy_of(node.inputs[2])
        assert zero_point is not None
        limits = np.iinfo(zero_point.dtype)
        return operands[1] * max(abs(end - float(zero_point)) for end in (limits.min, limits.max))
    if node.op_type == "Softmax":
        return 1.0
    if node.op_type == "MatMul":
        length = node.inputs[0].shape[-1]
        return operands[0] * operands[1] * (length if isinstance(length, int) else math.inf)
    if node.op_type == "Mul":
        return operands[0] * operands[1]
    if node.op_type == "Div":
        divisor = numpy_of(node.inputs[1])
        return math.inf if divisor is None or not divisor.all() else operands[0] / float(np.abs(divisor).min())
    return operands[0] + operands[1] if node.op_type == "Add" else operands[0]


def _convert(graph: ir.Graph, island: set[ir.Node]) -> None:
    """Make every float of the nodes float16. Constants are copied, for others may read them too."""
    for node in [node for node in graph if node in island]:  # a set has another order in each process
        for place, value in enumerate(node.inputs):
            constant = numpy_of(value)
            if value is not None and constant is not None and value.dtype is ir.DataType.FLOAT:
                half = stored(graph, f"{value.name}.float16", constant.astype(np.float16))
                node.replace_input_with(place, half)
        for output in node.outputs:
            if output.dtype is ir.DataType.FLOAT:
                output.type = ir.TensorType(_HALF)
