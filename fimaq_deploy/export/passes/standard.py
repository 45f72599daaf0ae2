"""What every file that is written promises: standard operators, integers where there were integers, float32 outside."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fimaq_deploy.export.passes.nvfp4 import VENDOR_OPERATOR
from fimaq_deploy.graph.edit import has_integer_weights, is_operator

_READERS_OF_WEIGHTS = ("Conv", "Gemm", "MatMul")


def require_standard(model: ir.Model, weights: int) -> None:
    """The postcondition of an export.

    weights: how many weight tensors must have stayed integers.

    Raises:
        RuntimeError: the exporter broke its promise; this is our bug.
    """
    problems = list(_problems(model, weights))
    if problems:
        raise RuntimeError(f"export failed its postcondition: {'; '.join(problems)}")


def _problems(model: ir.Model, weights: int) -> Iterator[str]:
    foreign = {node.domain for node in model.graph if node.domain and node.op_type != VENDOR_OPERATOR} | {
        one.name for one in model.functions.values()
    }
    if foreign:
        yield f"operators of other domains: {sorted(foreign)}"
    kept = sum(is_operator(node, *_READERS_OF_WEIGHTS) and has_integer_weights(node) for node in model.graph)
    if kept != weights:
        yield f"{kept} of {weights} weight tensors stayed integers and feed their MatMul or Conv directly"
    wrong = [v.name for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype is not ir.DataType.FLOAT]
    if wrong:
        yield f"not float32: {wrong}"
