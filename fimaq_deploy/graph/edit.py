"""Small tools to read and edit an ONNX graph: constants, quantizing chains, integer weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_CONSUMERS_OF_WEIGHTS = ("MatMul", "Conv", "Gemm")


_INTEGERS = (ir.DataType.INT8, ir.DataType.INT4)


def producer_type(value: ir.Value | None) -> str | None:
    producer = value.producer() if value is not None else None
    return producer.op_type if producer is not None else None


def quantizing_chain(value: ir.Value | None) -> list[ir.Node] | None:
    """The [Clip], QuantizeLinear, DequantizeLinear that end in a value which nothing else uses."""
    chain: list[ir.Node] = []
    for kind in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        node = value.producer() if value is not None and len(value.uses()) == 1 else None
        if node is None or node.op_type != kind:
            break
        chain.insert(0, node)
        value = node.inputs[0]
    return chain if len(chain) > 1 else None


def scalar(value: ir.Value | None) -> float:
    assert value is not None and value.const_value is not None, "the bounds of a Clip were not folded"
    return float(value.const_value.numpy())


def bypass(node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    ir.convenience.replace_all_uses_with(node.outputs[0], source)


def has_integer_weights(node: ir.Node) -> bool:
    """Whether a product reads stored integers, dequantized."""
    return any(is_integer_weight(value.producer()) for value in node.inputs if value is not None)


def is_integer_weight(node: ir.Node | None) -> bool:
    """Whether a node dequantizes integers that the file stores."""
    if node is None or node.op_type != "DequantizeLinear":
        return False
    stored = node.inputs[0]
    return stored is not None and stored.const_value is not None and stored.dtype in _INTEGERS


def stored(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer; where there is one of this name already, that one."""
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def integers(graph: ir.Graph, values: list[int]) -> ir.Value:
    """An initializer of INT64; equal ones are shared."""
    return stored(graph, "axes_" + "_".join(map(str, values)), np.array(values, np.int64))


def numpy_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant behind a value; INT4 is unpacked to int8."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return array.astype(np.int8) if value.dtype is ir.DataType.INT4 else array
