"""Small tools to read and edit an ONNX graph: shapes, constants, quantizing chains, replacement, bypass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

# What weights are stored in: integers, and floats of as few bits.
INTEGERS = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1)
_STANDARD = ("", "ai.onnx")


# Reading


def is_operator(node: ir.Node | None, *kinds: str) -> bool:
    """Whether a node is one of these operators of standard ONNX."""
    return node is not None and node.op_type in kinds and node.domain in _STANDARD


def nodes_of(graph: ir.Graph, *kinds: str) -> list[ir.Node]:
    """The nodes of some operators as they are now, so that the graph may be edited meanwhile."""
    return [node for node in graph if is_operator(node, *kinds)]


def read_at(node: ir.Node, index: int) -> ir.Value:
    """What a node reads at a place where its operator needs something."""
    value = node.inputs[index]
    assert value is not None, f"{node.name} reads nothing at place {index}"
    return value


def optional_at(node: ir.Node, index: int) -> ir.Value | None:
    """What a node reads at a place that may be empty or missing."""
    return node.inputs[index] if index < len(node.inputs) else None


def maker(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """The node that computes a value, if it is one of these operators (any, where none is named)."""
    node = value.producer() if value is not None else None
    return node if node is not None and (not kinds or is_operator(node, *kinds)) else None


def sizes(value: ir.Value) -> tuple[int | ir.SymbolicDim, ...]:
    """The shape of a value, which must be known."""
    assert value.shape is not None, f"the shape of {value.name} is not known"
    return tuple(value.shape)


def fixed(value: ir.Value, axis: int) -> int:
    """A size that must not depend on the batch."""
    size = sizes(value)[axis]
    assert isinstance(size, int), f"axis {axis} of {value.name} is not fixed"
    return size


def rank(value: ir.Value | None) -> int | None:
    """How many axes a value has; None where that is not known."""
    return None if value is None or value.shape is None else len(value.shape)


def numpy_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant behind a value; INT4 is unpacked to int8."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return array.astype(np.int8) if value.dtype is ir.DataType.INT4 else array


# Quantization


def quantizing_chain(value: ir.Value | None) -> list[ir.Node] | None:
    """The [Clip], QuantizeLinear, DequantizeLinear that end in a value which nothing else uses."""
    chain: list[ir.Node] = []
    for kind in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        node = maker(value, kind) if value is not None and len(value.uses()) == 1 else None
        if node is None:
            break
        chain.insert(0, node)
        value = node.inputs[0]
    return chain if len(chain) > 1 else None


def has_one_scale(chain: list[ir.Node]) -> bool:
    """Whether a quantizing chain has one stored scale for the whole tensor, so that its numbers may be moved."""
    scales = [numpy_of(optional_at(node, 1)) for node in chain[-2:]]
    return all(scale is not None and scale.size == 1 for scale in scales)


def has_integer_weights(node: ir.Node) -> bool:
    """Whether a product reads stored integers, dequantized."""
    return any(is_integer_weight(maker(value)) for value in node.inputs)


def is_integer_weight(node: ir.Node | None) -> bool:
    """Whether a node dequantizes integers that the file stores."""
    if node is None or not is_operator(node, "DequantizeLinear"):
        return False
    stored = unwidened(node.inputs[0])
    return stored is not None and stored.const_value is not None and stored.dtype in INTEGERS


def unwidened(integers: ir.Value | None) -> ir.Value | None:
    """INT4 in front of the Cast to INT8 behind which a weight may be stored; other values are returned as they are."""
    cast = maker(integers, "Cast")
    if cast is None or cast.inputs[0] is None or cast.inputs[0].dtype is not ir.DataType.INT4:
        return integers
    return cast.inputs[0]


# Constants


def stored(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer; where there is one of this name already, that one."""
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        shape, kind = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]


def stored_scalar(graph: ir.Graph, number: np.ndarray) -> ir.Value:
    """A number as an initializer; equal ones are shared."""
    return stored(graph, f"{number.dtype.name}_{float(number):g}", number)


def stored_axes(graph: ir.Graph, values: list[int]) -> ir.Value:
    """An initializer of INT64; equal ones are shared."""
    return stored(graph, "axes_" + "_".join(map(str, values)), np.array(values, np.int64))


# Editing


def typed(value: ir.Value, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
    """Say what a new value is."""
    assert dtype is not None, f"{value.name} would have no type"
    value.type, value.shape = ir.TensorType(dtype), shape
    return value


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let `new` take the place and the name of `old`, which may be an output of the graph.

    `old` keeps a name, of any sort: onnx-ir before 1.1 takes a value without one for an output that nobody wants.
    """
    name, old.name = old.name, "v"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name = name


def bypass(node: ir.Node) -> None:
    """Remove a node whose result is its first input. It must not make an output of the graph."""
    assert node.graph is not None
    ir.convenience.replace_all_uses_with(node.outputs[0], read_at(node, 0))
    node.graph.remove(node, safe=True)


def broken_order(graph: ir.Graph) -> Iterator[str]:
    """Where a node reads what is not there yet, or makes what has no name. Nothing, in a graph that can run."""
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        missing = [value for value in node.inputs if value is not None and value not in known]
        yield from (f"{node.name} reads {value.name}, which nothing before it makes" for value in missing)
        yield from (f"a result of {node.name} has no name" for value in node.outputs if value.name is None)
        known.update(node.outputs)
    yield from (f"nothing makes the output {value.name}" for value in graph.outputs if value not in known)
