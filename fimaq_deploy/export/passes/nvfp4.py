"""Activations in 4-bit floats whose blocks get their scales while the graph runs.

A trace has them as QuantizeLinear and DequantizeLinear of FLOAT4E2M1 in blocks of the last axis, with the scale of the
whole tensor. What they mean no pair of standard operators says: with g that scale, of each block b

    s = g · E4M3(max|b| / 6 / g),   b becomes s · E2M1(b / s),   and 0 where s is 0

`dynamic_in_one_operator` writes it as the vendor's operator, which hands on the values and the scales of their blocks,
for the targets that have a kernel; `dynamic_spelled_out` in operators that every runtime has, for a reference.

    E2M1(y) = round(y' / d) d,   y' = y within ±6,   d = ½ below 2, 1 below 4, else 2,   rounding half to even
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import (
    fixed,
    is_operator,
    maker,
    numpy_of,
    rank,
    read_at,
    sizes,
    stored,
    stored_axes,
    stored_scalar,
)

VENDOR_DOMAIN, VENDOR_OPERATOR = "trt", "TRT_FP4DynamicQuantize"
_VALUES, _SCALES = ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT8E4M3FN
_LARGEST = 6.0


def obstacle(quantize: ir.Node) -> str | None:
    if len(quantize.inputs) < 3 or read_at(quantize, 2).dtype is not _VALUES:
        return "it quantizes to another type"
    readers = [use.node for use in quantize.outputs[0].uses()]
    if len(readers) != 1 or readers[0].op_type != "DequantizeLinear":
        return "what reads it is not one DequantizeLinear"
    return None


class _Writer:
    """Nodes in front of a DequantizeLinear, named after their module."""

    def __init__(self, graph: ir.Graph, quantize: ir.Node) -> None:
        self.graph, self.x, self.scale = graph, read_at(quantize, 0), read_at(quantize, 1)
        self.end = next(use.node for use in quantize.outputs[0].uses())
        self.block = quantize.attributes.get_int("block_size", 16)
        self.module, self.count = str(quantize.name).rpartition("/")[0], 0
        self.float = self.x.dtype or ir.DataType.FLOAT

    def add(
        self, kind: str, inputs: list[ir.Value], shape: Any, dtype: ir.DataType | None = None, **attributes: int
    ) -> ir.Value:
        (value,) = self.node(kind, inputs, [(dtype or self.float, shape)], "", **attributes)
        return value

    def node(
        self, kind: str, inputs: list[ir.Value], outputs: list[tuple[ir.DataType, Any]], domain: str = "", **given: int
    ) -> list[ir.Value]:
        self.count += 1
        name = f"{self.module}/{kind}_{self.count}"
        values = [
            ir.Value(name=f"{name}:{number}", type=ir.TensorType(dtype), shape=ir.Shape(shape))
            for number, (dtype, shape) in enumerate(outputs)
        ]
        stated = [ir.AttrInt64(key, value) for key, value in given.items()]
        self.graph.insert_before(self.end, ir.Node(domain, kind, inputs, stated, outputs=values, name=name))
        return values

    def number(self, value: float) -> ir.Value:
        return stored_scalar(self.graph, np.array(value, self.float.numpy()))

    def finish(self, value: ir.Value, quantize: ir.Node) -> None:
        result = self.end.outputs[0]
        ir.convenience.replace_all_uses_with(result, value)
        name, result.name = result.name, "v"
        value.name = name
        zero = read_at(quantize, 2)
        self.graph.remove([self.end, quantize], safe=True)
        if not zero.uses():  # no runtime without the type has to read one number of it
            self.graph.initializers.pop(str(zero.name), None)


def in_one_operator(graph: ir.Graph, quantize: ir.Node) -> None:
    write = _Writer(graph, quantize)
    if not graph.opset_imports.get(VENDOR_DOMAIN):
        graph.opset_imports[VENDOR_DOMAIN] = 1
    x, shape = write.x, list(sizes(write.x))
    flat = rank(x) not in (2, 3)  # which it takes no others than
    if flat:
        rows = ir.SymbolicDim(f"{write.module}.rows")
        x = write.add("Reshape", [x, stored_axes(graph, [-1, fixed(write.x, -1)])], [rows, shape[-1]])
    own = list(sizes(x))
    scaled = [*own[:-1], fixed(x, -1) // write.block]
    values, scales = write.node(
        VENDOR_OPERATOR,
        [x, write.scale],
        [(_VALUES, own), (_SCALES, scaled)],
        VENDOR_DOMAIN,
        axis=-1,
        block_size=write.block,
        scale_type=int(_SCALES),
    )
    floats = write.add("DequantizeLinear", [scales, write.scale], scaled)
    y = write.add("DequantizeLinear", [values, floats], own, axis=len(own) - 1, block_size=write.block)
    if flat:
        readers = [use.node for use in write.end.outputs[0].uses()]
        product = readers[0] if len(readers) == 1 and is_operator(readers[0], "MatMul") else None
        if product is not None and rank(product.inputs[1]) == 2:
            _shaped_behind(graph, product, own[0])
        else:
            y = write.add("Reshape", [y, stored_axes(graph, [-1, *_inner(write.x)])], shape)
    write.finish(y, quantize)


def _inner(value: ir.Value) -> list[int]:
    return [fixed(value, axis) for axis in range(1, len(sizes(value)))]


def _shaped_behind(graph: ir.Graph, product: ir.Node, rows: Any) -> None:
    """Let a product of rows [rows, columns] have its shape again: the compiler multiplies no others in 4-bit floats."""
    result = product.outputs[0]
    shape, axes = result.shape, stored_axes(graph, [-1, *_inner(result)])
    behind = ir.Value(name=f"{result.name}_shaped", type=result.type, shape=shape)
    node = ir.Node("", "Reshape", [result, axes], outputs=[behind], name=f"{product.name}/Reshape")
    ir.convenience.replace_all_uses_with(result, behind)
    node.replace_input_with(0, result)
    graph.insert_after(product, node)
    result.shape = ir.Shape([rows, fixed(result, -1)])


def spelled_out(graph: ir.Graph, quantize: ir.Node) -> None:
    write = _Writer(graph, quantize)
    shape, width = list(sizes(write.x)), fixed(write.x, -1)
    blocks, one = [*shape[:-1], width // write.block, write.block], [*shape[:-1], width // write.block, 1]
    inner = [fixed(write.x, axis) for axis in range(1, len(shape) - 1)]
    x = write.add("Reshape", [write.x, stored_axes(graph, [-1, *inner, width // write.block, write.block])], blocks)
    largest = write.add("ReduceMax", [write.add("Abs", [x], blocks), stored_axes(graph, [-1])], one, keepdims=1)
    zero = stored(graph, "float8_zero", np.array(0, ml_dtypes.float8_e4m3fn))
    # In the order of `fimaq::quantize_dequantize_nvfp4`, which rounds twice too.
    sixth = write.add("Div", [largest, write.number(_LARGEST)], one)
    eight = write.add("QuantizeLinear", [sixth, write.scale, zero], one, _SCALES)
    scale = write.add("DequantizeLinear", [eight, write.scale, zero], one)
    empty = write.add("Equal", [scale, write.number(0.0)], one, ir.DataType.BOOL)
    divisor = write.add("Where", [empty, write.number(1.0), scale], one)
    y = write.add("Div", [x, divisor], blocks)
    y = write.add("Clip", [y, write.number(-_LARGEST), write.number(_LARGEST)], blocks)
    size = write.add("Abs", [y], blocks)
    small, medium = (write.add("Less", [size, write.number(bound)], blocks, ir.DataType.BOOL) for bound in (2.0, 4.0))
    wide = write.add("Where", [medium, write.number(1.0), write.number(2.0)], blocks)
    gap = write.add("Where", [small, write.number(0.5), wide], blocks)
    steps = write.add("Round", [write.add("Div", [y, gap], blocks)], blocks)
    rounded = write.add("Mul", [write.add("Mul", [steps, gap], blocks), scale], blocks)
    write.finish(write.add("Reshape", [rounded, stored_axes(graph, [-1, *inner, width])], shape), quantize)


dynamic_in_one_operator = Rewrite("dynamic_in_one_operator", "QuantizeLinear", obstacle, in_one_operator)
dynamic_spelled_out = Rewrite("dynamic_spelled_out", "QuantizeLinear", obstacle, spelled_out)


# Weights: PyTorch holds the values of E2M1 in FLOAT8E4M3FN, which runtimes without 4-bit floats read too.


def keeps_bytes(dequantize: ir.Node) -> str | None:
    """Why stored values are not packed, two a byte."""
    weights = dequantize.inputs[0]
    if weights is None or weights.const_value is None or weights.dtype is not _SCALES:
        return "it reads no stored 8-bit floats"
    if not dequantize.attributes.get_int("block_size", 0):
        return "it has no blocks"
    values = numpy_of(weights)
    assert values is not None
    exact = values.astype(ml_dtypes.float4_e2m1fn).astype(np.float32) == values.astype(np.float32)
    return None if exact.all() else "its values need more than 4 bits"


def pack(graph: ir.Graph, dequantize: ir.Node) -> None:
    weights = read_at(dequantize, 0)
    values = numpy_of(weights)
    assert values is not None and maker(weights) is None
    weights.const_value = ir.tensor(values.astype(ml_dtypes.float4_e2m1fn), name=weights.name)
    weights.type = ir.TensorType(_VALUES)


pack_float4 = Rewrite("pack_float4", "DequantizeLinear", keeps_bytes, pack)
