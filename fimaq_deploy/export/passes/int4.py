"""Weights that are dequantized in blocks are stored as INT4, two integers a byte.

torch has no such type and holds them in INT8. The numbers are the same where every integer lies in -8..7; one that does
not keeps its tensor in INT8.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import numpy_of, read_at


def obstacle(dequantize: ir.Node) -> str | None:
    weights = dequantize.inputs[0]
    integers = numpy_of(weights)
    if not dequantize.attributes.get_int("block_size", 0):
        return "it has no blocks"
    if integers is None:
        return "what it reads is not stored"
    if weights is not None and weights.dtype is ir.DataType.INT4:
        return "it reads INT4 already"
    if integers.size and (integers.min() < -8 or integers.max() > 7):
        return f"integers from {integers.min()} to {integers.max()} need more than 4 bits"
    return None


def rewrite(graph: ir.Graph, dequantize: ir.Node) -> None:
    weights = read_at(dequantize, 0)
    integers = numpy_of(weights)
    assert integers is not None
    weights.const_value = ir.tensor(integers.astype(ml_dtypes.int4), name=weights.name)
    weights.dtype = ir.DataType.INT4
    assert np.array_equal(weights.const_value.numpy().astype(np.int8), integers)


pack_int4 = Rewrite("pack_int4", "DequantizeLinear", obstacle, rewrite)
