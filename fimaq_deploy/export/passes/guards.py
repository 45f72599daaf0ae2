"""A Clip at the float type's own limits behind a product whose result is split into q, k and v unquantized.

    Clip(x, -largest, largest) = x   for every finite x

TensorRT's compiler otherwise splits the product with its result, and for that writes its integer weights to memory as
floats; an elementwise operator in between keeps it whole and in integers, and fuses with what follows (RTX 1.7.1).
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.integer_clips import clip_of
from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import has_integer_weights, is_operator, maker, read_at, stored_scalar
from fimaq_deploy.graph.values import MOVES, readers


def obstacle(reshape: ir.Node) -> str | None:
    value = reshape.inputs[0]
    if value is None or not _is_integer_product(value):
        return "it does not read a product with integer weights"
    ends = list(readers(reshape.outputs[0]))
    if len(ends) < 2 or any(use.node.op_type not in MOVES for use in reshape.outputs[0].uses()):
        return "the product is not split"
    if any(is_operator(node, "Clip", "QuantizeLinear") for node in ends):
        return "what it is split into is quantized"
    return None


def _is_integer_product(value: ir.Value) -> bool:
    """Whether a value is a MatMul with integer weights, with or without a bias."""
    add = maker(value, "Add")
    node = maker(value if add is None else add.inputs[0], "MatMul")
    return node is not None and has_integer_weights(node)


def rewrite(graph: ir.Graph, reshape: ir.Node) -> None:
    value = read_at(reshape, 0)
    dtype, product = value.dtype, maker(value)
    assert dtype is not None and product is not None
    largest = float(ml_dtypes.finfo(dtype.numpy()).max)
    bounds = [stored_scalar(graph, np.array(bound, dtype.numpy())) for bound in (-largest, largest)]
    clip = clip_of(value, bounds, f"{str(product.name).rpartition('/')[0]}/Clip")
    reshape.replace_input_with(0, clip.outputs[0])
    graph.insert_before(reshape, clip)


guard_split_products = Rewrite("guard_split_products", "Reshape", obstacle, rewrite)
