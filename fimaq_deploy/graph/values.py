"""Values of an ONNX graph: what is stored, what sizes are known, who computes them and who reads them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# The first input is the data, of Concat all are.
MOVES = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_NOT_DATA = frozenset({"Shape", "Size"})


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant behind a value, None where it is computed or an input."""
    return None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """A stored constant as an array."""
    tensor = stored_tensor(value)
    return None if tensor is None else tensor.numpy()


def dimension(value: ir.Value, axis: int) -> int | None:
    """One size of a tensor, None where it is not known before the graph runs."""
    shape = value.shape
    if shape is None or len(shape) < (-axis if axis < 0 else axis + 1):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a value's numbers, moved or not."""
    for use in value.uses():
        node = use.node
        if node.op_type in MOVES and (use.idx == 0 or node.op_type == "Concat"):
            for output in node.outputs:
                yield from readers(output)
        elif node.op_type not in _NOT_DATA:
            yield node


def integer_type(quantizer: ir.Node) -> ir.DataType | None:
    """The type of the integers that a QuantizeLinear writes or a DequantizeLinear reads."""
    zero_point = input_of(quantizer, 2)
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if quantizer.op_type == "DequantizeLinear":
        return quantizer.inputs[0].dtype if quantizer.inputs[0] is not None else None
    return ir.DataType(quantizer.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
