"""Weights of at most four bits are stored as INT4, two integers a byte.

torch has no such type and holds them in INT8. The numbers are the same where every integer lies in -8..7; a tensor in
which one does not keeps INT8.

Blocks of input channels have kernels that read INT4 (`pack_int4`). Integers with one scale for each output channel
are multiplied as INT8. `pack_behind_cast` stores them behind a Cast, which runtimes fold once, when they load the file;
TensorRT takes no Cast of INT4, only the DequantizeLinear itself (`pack_channels`), and widens them in every run.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import is_integer_weight, numpy_of, read_at, typed, unwidened
from fimaq_deploy.target.numbers import INT4


def obstacle(dequantize: ir.Node) -> str | None:
    if not dequantize.attributes.get_int("block_size", 0):
        return "it has no blocks"
    return _too_wide(dequantize)


def _too_wide(dequantize: ir.Node) -> str | None:
    weights = unwidened(dequantize.inputs[0])
    integers = numpy_of(weights)
    if integers is None:
        return "what it reads is not stored"
    if weights is not None and weights.dtype is ir.DataType.INT4:
        return "it reads INT4 already"
    if weights is not None and weights.dtype is not ir.DataType.INT8:
        return "what it reads are no integers"
    if integers.size and (integers.min() < INT4.low or integers.max() > INT4.high):
        return f"integers from {integers.min()} to {integers.max()} need more than 4 bits"
    return None


def rewrite(graph: ir.Graph, dequantize: ir.Node) -> None:
    weights = read_at(dequantize, 0)
    integers = numpy_of(weights)
    assert integers is not None
    weights.const_value = ir.tensor(integers.astype(ml_dtypes.int4), name=weights.name)
    weights.type = ir.TensorType(ir.DataType.INT4)  # a new one: copies of a graph share theirs
    assert np.array_equal(weights.const_value.numpy().astype(np.int8), integers)


def channels_obstacle(dequantize: ir.Node) -> str | None:
    if dequantize.attributes.get_int("block_size", 0):
        return "it has blocks"
    if not is_integer_weight(dequantize):
        return "what it reads is not stored"
    if len(dequantize.inputs) > 2 and dequantize.inputs[2] is not None:
        return "its zero point is of the type of its integers"
    if len(read_at(dequantize, 0).uses()) > 1:
        return "something else reads its integers"
    return _too_wide(dequantize)


def _rewrite_behind_cast(graph: ir.Graph, dequantize: ir.Node) -> None:
    rewrite(graph, dequantize)
    weights = read_at(dequantize, 0)
    cast = ir.Node("", "Cast", [weights], [ir.AttrInt64("to", int(ir.DataType.INT8))], name=f"{dequantize.name}/widen")
    typed(cast.outputs[0], ir.DataType.INT8, weights.shape).name = f"{weights.name}_int8"
    graph.insert_before(dequantize, cast)
    dequantize.replace_input_with(0, cast.outputs[0])


pack_int4 = Rewrite("pack_int4", "DequantizeLinear", obstacle, rewrite)
pack_channels = Rewrite("pack_channels", "DequantizeLinear", channels_obstacle, rewrite)
pack_behind_cast = Rewrite("pack_behind_cast", "DequantizeLinear", channels_obstacle, _rewrite_behind_cast)
