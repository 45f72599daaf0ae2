"""Passes that move nothing but what TensorRT's compiler fuses: the numbers stay the same.

Each was found by compiling variants with TensorRT-RTX 1.7.1 and reading the layer plan; `docs/log` has them.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph.edit import has_integer_weights, numpy_of, stored
from fimaq_deploy.graph.structure import MOVES, readers


def clip_integers(graph: ir.Graph) -> None:
    """Clip → QuantizeLinear becomes QuantizeLinear → Clip of the integers.

    A Clip of floats between attention and a QuantizeLinear keeps attention from fusing into one kernel, a Clip of the
    integers does not. What the Clip of floats would have cut, the container's saturation and the other Clip cut to the
    same integer.
    """
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        clip = node.inputs[0].producer() if node.inputs[0] is not None else None
        if clip is not None and clip.op_type == "Clip" and len(clip.outputs[0].uses()) == 1:
            _clip_behind(graph, node, clip)


def _clip_behind(graph: ir.Graph, quantize: ir.Node, clip: ir.Node) -> None:
    scale, zero_point = numpy_of(quantize.inputs[1]), numpy_of(quantize.inputs[2])
    floats = [numpy_of(bound) for bound in clip.inputs[1:3]]
    assert scale is not None and zero_point is not None and all(bound is not None for bound in floats)
    bounds = [
        _stored(graph, np.array(np.rint(np.float64(bound) / np.float64(scale)) + zero_point, zero_point.dtype))
        for bound in floats
        if bound is not None
    ]
    quantize.replace_input_with(0, clip.inputs[0])
    integers = quantize.outputs[0]
    behind = _clip(clip.name, integers, bounds)
    ir.convenience.replace_all_uses_with(integers, behind.outputs[0])
    behind.replace_input_with(0, integers)
    graph.insert_after(quantize, behind)
    graph.remove(clip, safe=True)


def _clip(name: str | None, value: ir.Value, bounds: list[ir.Value]) -> ir.Node:
    output = ir.Value(name=name, shape=value.shape, type=value.type)
    return ir.Node("", "Clip", [value, *bounds], outputs=[output], name=name)


def _stored(graph: ir.Graph, scalar: np.ndarray) -> ir.Value:
    """A scalar as an initializer; equal ones are shared."""
    return stored(graph, f"{scalar.dtype.name}_{float(scalar):g}", scalar)


def guard_fused_products(graph: ir.Graph) -> None:
    """Put a Clip at the float type's own limits behind a product whose result is split into q, k and v unquantized.

    The compiler otherwise splits the product with its result, and for that writes its integer weights to memory as
    floats; an elementwise operator in between keeps it whole and in integers, and fuses with what follows. The Clip
    changes no finite number.
    """
    for node in [node for node in graph if node.op_type == "Reshape"]:
        value = node.inputs[0]
        if value is not None and _splits_unquantized(node) and _is_integer_product(value):
            _limit(graph, node, value)


def _splits_unquantized(reshape: ir.Node) -> bool:
    """Whether several nodes read parts of a result, and none of them quantizes it or reads it whole."""
    ends = list(readers(reshape.outputs[0]))
    read_whole = any(use.node.op_type not in MOVES for use in reshape.outputs[0].uses())
    return len(ends) > 1 and not read_whole and not any(node.op_type in ("Clip", "QuantizeLinear") for node in ends)


def _is_integer_product(value: ir.Value) -> bool:
    """Whether a value is a MatMul with integer weights, with or without a bias."""
    node = value.producer()
    if node is not None and node.op_type == "Add" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "MatMul" and has_integer_weights(node)


def _limit(graph: ir.Graph, reader: ir.Node, value: ir.Value) -> None:
    assert value.dtype is not None
    largest = float(ml_dtypes.finfo(value.dtype.numpy()).max)
    bounds = [_stored(graph, np.array(bound, value.dtype.numpy())) for bound in (-largest, largest)]
    product = value.producer()
    assert product is not None
    clip = _clip(f"{str(product.name).rpartition('/')[0]}/Clip", value, bounds)
    reader.replace_input_with(0, clip.outputs[0])
    graph.insert_before(reader, clip)
