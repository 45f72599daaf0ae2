"""Rows of the last block that nobody reads.

    f(x)[:, 0] = f(x[:, 0:1])[:, 0]   for every f that works row by row

A ViT's head reads the class token alone, the first of 197 rows. Behind the last attention every operator works row by
row, so a Slice is put there and the rest of the block computes one row: the same numbers, a sixteenth less work in a
model of twelve blocks, and on TensorRT-RTX one kernel fewer in the head, because the final norm no longer ends in a
Gather that splits it into two kernels.

It holds where nothing else reads those rows, neither another node (a second token, a mean over tokens) nor whoever
runs the file, and it is done where that spares a product of integers.

Not done: a Slice of the queries. Attention with one query is not fused (RTX 1.7.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import (
    has_integer_weights,
    is_operator,
    maker,
    numpy_of,
    optional_at,
    rank,
    read_at,
    sizes,
    stored_axes,
)

_ROW_WISE = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "DequantizeLinear",
        "Div",
        "Erf",
        "Gelu",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "QuantizeLinear",
        "Sub",
    }
)


def obstacle(gather: ir.Node) -> str | None:
    index = numpy_of(optional_at(gather, 1))
    if gather.attributes.get_int("axis", 0) != 1 or index is None or index.shape != () or int(index) != 0:
        return "it reads other rows than the first"
    if rank(gather.inputs[0]) != 3 or sizes(read_at(gather, 0))[1] == 1:
        return "it does not read one row of several"
    if not any(is_operator(node, "MatMul") and has_integer_weights(node) for node in _row_wise_before(gather)):
        return "no product with integer weights computes rows for it alone"
    if any(_reads_float4(node) for node in _row_wise_before(gather)):
        return "it would stand between a product and what that reads in 4-bit floats"
    return None


def _reads_float4(node: ir.Node) -> bool:
    source = maker(node.inputs[0], "DequantizeLinear")
    return source is not None and read_at(source, 0).dtype is ir.DataType.FLOAT4E2M1


def rewrite(graph: ir.Graph, gather: ir.Node) -> None:
    """Give the first row of what comes from outside to the nodes that compute rows for the Gather alone."""
    nodes = _row_wise_before(gather)
    first_rows: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for place, value in _from_outside(node, nodes):
            if value not in first_rows:
                first_rows[value] = _first_row(graph, node, value)
            node.replace_input_with(place, first_rows[value])
    for node in nodes:
        node.outputs[0].shape = _one_row(node.outputs[0])


def _row_wise_before(gather: ir.Node) -> list[ir.Node]:
    """The nodes whose results only the Gather reads, through others of them, and which treat every row alike."""
    assert gather.graph is not None
    reached, found = {gather}, list[ir.Node]()
    for node in reversed(list(gather.graph)):
        uses = node.outputs[0].uses()
        if uses and {use.node for use in uses} <= reached and _is_row_wise(node):
            reached.add(node)
            found.append(node)
    return found[::-1]


def _is_row_wise(node: ir.Node) -> bool:
    """Whether each row of a result [batch, rows, columns] depends on the same row of the operands alone."""
    result = node.outputs[0]
    if not is_operator(node, *_ROW_WISE) or not _has_rows(result) or result.is_graph_output() or _mixes_rows(node):
        return False
    first, *others = [value for value in node.inputs if value is not None]
    if node.op_type == "MatMul":
        return _has_rows(first) and rank(others[0]) == 2
    return all(_has_rows(value) or rank(value) in (0, 1) for value in (first, *others))


def _mixes_rows(node: ir.Node) -> bool:
    """Whether a norm runs over rows, or quantization has a scale for each of them."""
    if node.op_type == "LayerNormalization":
        return node.attributes.get_int("axis", -1) not in (-1, 2) or len(node.outputs) > 1
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and rank(optional_at(node, 1)) != 0


def _has_rows(value: ir.Value) -> bool:
    return rank(value) == 3 and value.const_value is None


def _from_outside(node: ir.Node, nodes: list[ir.Node]) -> Iterator[tuple[int, ir.Value]]:
    for place, value in enumerate(node.inputs):
        if value is not None and _has_rows(value) and value.producer() not in nodes:
            yield place, value


def _first_row(graph: ir.Graph, reader: ir.Node, value: ir.Value) -> ir.Value:
    output = ir.Value(name=f"{value.name}_first_row", shape=_one_row(value), type=value.type)
    bounds = [stored_axes(graph, [number]) for number in (0, 1, 1)]
    graph.insert_before(
        reader, ir.Node("", "Slice", [value, *bounds], outputs=[output], name=_free_name(graph, reader))
    )
    return output


def _free_name(graph: ir.Graph, reader: ir.Node) -> str:
    """A name for a Slice in a node's module, numbered as `name_nodes` numbers."""
    name = f"{str(reader.name).rpartition('/')[0]}/Slice"
    taken = sum(str(node.name).startswith(name) for node in graph)
    return f"{name}_{taken}" if taken else name


def _one_row(value: ir.Value) -> ir.Shape:
    batch, _, columns = sizes(value)
    return ir.Shape([batch, 1, columns])


drop_unread_rows = Rewrite("drop_unread_rows", "Gather", obstacle, rewrite)
