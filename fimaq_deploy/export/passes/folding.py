"""Constants are folded and what is computed twice is computed once, but nothing that quantizes.

A QuantizeLinear or DequantizeLinear of constants says which integers the file stores: it stays.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.optimizer import optimize_ir

from fimaq_deploy.export.passes.rewrite import require, whole
from fimaq_deploy.graph.edit import is_operator, read_at

# A folded constant may not have more elements than this (unless it replaces as many): Swin's bias and mask for
# 144-token windows stay two constants and one Add, which every runtime folds when it loads.
LARGEST_CONSTANT = 2**20

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@whole
def fold_constants(model: ir.Model) -> bool:
    quantized, before = _quantized(model.graph), [*model.graph]
    optimize_ir(model, should_fold=lambda n: n.op_type not in _QUANTIZERS, output_size_limit=LARGEST_CONSTANT)
    require(quantized == _quantized(model.graph), "stored integers were folded into floats")
    require(not model.functions, "functions were not inlined")
    return before != [*model.graph]


def _quantized(graph: ir.Graph) -> set[str | None]:
    """The stored integers that are dequantized, by name. Not their scales: two that are equal become one."""
    found = (node for node in graph if is_operator(node, "DequantizeLinear") and node.inputs[0] is not None)
    return {read_at(node, 0).name for node in found if read_at(node, 0).const_value is not None}
