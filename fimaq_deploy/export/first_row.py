"""Rows of the last block that nobody reads.

A ViT's head reads the class token alone, the first of 197 rows. Behind the last attention every operator works row by
row, so a Slice is put there and the rest of the block computes one row: the same numbers, a sixteenth less work in a
model of twelve blocks, and on TensorRT-RTX one kernel fewer in the head, because the final norm no longer ends in a
Gather that splits it into two kernels.

Not done: a Slice of the queries. Attention with one query is not fused (RTX 1.7.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fimaq_deploy.graph.edit import has_integer_weights, integers, numpy_of

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


def drop_unread_rows(graph: ir.Graph) -> None:
    """Compute only the first row where a Gather reads no other, if that spares an integer product."""
    for node in [node for node in graph if node.op_type == "Gather"]:
        if _reads_first_row(node):
            spared = _row_wise_before(graph, node)
            if any(each.op_type == "MatMul" and has_integer_weights(each) for each in spared):
                _slice_inputs(graph, spared)


def _reads_first_row(gather: ir.Node) -> bool:
    index = numpy_of(gather.inputs[1])
    return gather.attributes.get_int("axis", 0) == 1 and index is not None and index.shape == () and int(index) == 0


def _row_wise_before(graph: ir.Graph, gather: ir.Node) -> list[ir.Node]:
    """The nodes whose results only the Gather reads, through others of them, and which treat every row alike."""
    reached, found = {gather}, []
    for node in reversed(list(graph)):
        uses = node.outputs[0].uses()
        if uses and {use.node for use in uses} <= reached and _is_row_wise(node):
            reached.add(node)
            found.append(node)
    return found[::-1]


def _is_row_wise(node: ir.Node) -> bool:
    """Whether each row of a result [batch, rows, columns] depends on the same row of the operands alone."""
    if node.op_type not in _ROW_WISE or not _has_rows(node.outputs[0]) or node.outputs[0].is_graph_output():
        return False
    first, *others = [value for value in node.inputs if value is not None]
    if node.op_type == "MatMul":
        return _has_rows(first) and _rank(others[0]) == 2
    return all(_has_rows(value) or _rank(value) in (0, 1) for value in (first, *others))


def _has_rows(value: ir.Value) -> bool:
    return _rank(value) == 3 and value.const_value is None


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _slice_inputs(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Give nodes the first row of what comes from outside of them."""
    first_rows: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for place, value in _from_outside(node, nodes):
            if value not in first_rows:
                first_rows[value] = _first_row(graph, node, value)
            node.replace_input_with(place, first_rows[value])
    for node in nodes:
        node.outputs[0].shape = _one_row(node.outputs[0])


def _from_outside(node: ir.Node, nodes: list[ir.Node]) -> Iterator[tuple[int, ir.Value]]:
    for place, value in enumerate(node.inputs):
        if value is not None and _has_rows(value) and value.producer() not in nodes:
            yield place, value


def _first_row(graph: ir.Graph, reader: ir.Node, value: ir.Value) -> ir.Value:
    output = ir.Value(name=f"{value.name}_first_row", shape=_one_row(value), type=value.type)
    bounds = [integers(graph, [number]) for number in (0, 1, 1)]
    graph.insert_before(
        reader, ir.Node("", "Slice", [value, *bounds], outputs=[output], name=_free_name(graph, reader))
    )
    return output


def _free_name(graph: ir.Graph, reader: ir.Node) -> str:
    """A name for a Slice in a node's module, numbered as `passes` numbers."""
    name = f"{str(reader.name).rpartition('/')[0]}/Slice"
    taken = sum(str(node.name).startswith(name) for node in graph)
    return f"{name}_{taken}" if taken else name


def _one_row(value: ir.Value) -> ir.Shape:
    batch, _, columns = value.shape or ()
    return ir.Shape([batch, 1, columns])
