"""Small tools to read the protobuf of an ONNX model, for what is too broken to become an `onnx_ir` graph."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from typing import Any

import onnx


def label(node: onnx.NodeProto) -> str:
    """A node's name, or what it is and computes where it has none."""
    return node.name or f"{node.op_type} {', '.join(node.output)}".strip()


def attribute_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def every_graph(
    model: onnx.ModelProto,
) -> Iterator[tuple[MutableSequence[onnx.NodeProto], Sequence[onnx.OperatorSetIdProto]]]:
    """The nodes of the graph, of the graphs inside it and of the model's functions, with the opsets they are of."""
    for nodes in _nodes(model.graph.node):
        yield nodes, model.opset_import
    for function in model.functions:
        for nodes in _nodes(function.node):
            yield nodes, function.opset_import


def _nodes(nodes: MutableSequence[onnx.NodeProto]) -> Iterator[MutableSequence[onnx.NodeProto]]:
    yield nodes
    for node in nodes:
        for inner in attribute_graphs(node):
            yield from _nodes(inner.node)


def defined_names(graph: onnx.GraphProto) -> frozenset[str]:
    """What a graph is given, stores or computes."""
    given = (value.name for value in graph.input)
    stored = (tensor.name for tensor in graph.initializer)
    sparse = (tensor.values.name for tensor in graph.sparse_initializer)
    computed = (name for node in graph.node for name in node.output)
    return frozenset({*given, *stored, *sparse, *computed} - {""})


def names_read(node: onnx.NodeProto) -> set[str]:
    """What a node reads, the graphs inside it included."""
    found = {name for name in node.input if name}
    for inner in attribute_graphs(node):
        reads = {value.name for value in inner.output}.union(*(names_read(each) for each in inner.node))
        found |= reads - defined_names(inner)
    return found


def every_tensor(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The stored tensors of a graph, of its nodes' attributes and of the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """The tensors that nodes hold in their attributes, and those of the graphs inside them."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in attribute_graphs(node):
            yield from every_tensor(inner)


def is_text_whole(message: Any) -> bool:
    """Whether all text of a protobuf message is UTF-8; protobuf hands over as bytes what is not."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_STRING and any(isinstance(each, bytes) for each in values):
            return False
        if field.type == field.TYPE_MESSAGE and not all(is_text_whole(each) for each in values):
            return False
    return True
