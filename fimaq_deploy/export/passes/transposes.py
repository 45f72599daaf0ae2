"""[Clip] → Q → DQ → Transpose becomes Transpose → [Clip] → Q → DQ: the same numbers, as each has one scale for all.

ONNX Runtime inserts a Q/DQ pair after a Transpose of a DQ, and where it also rewrites INT8 to UINT8 it forgets the
pair's type and refuses its own graph (1.31, opset 21). TensorRT needs the opposite: with the Transpose first its qkv
projection falls back to FP16 (RTX 1.7.1, measured).
"""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import has_one_scale, quantizing_chain, read_at


def obstacle(transpose: ir.Node) -> str | None:
    chain = quantizing_chain(transpose.inputs[0])
    if chain is None:
        return "it does not read a quantized tensor, or is not alone to read it"
    if transpose.outputs[0].is_graph_output():
        return "it makes an output of the graph"
    if not has_one_scale(chain):
        return "the tensor has a scale for each channel, or one that is not stored"
    return None


def rewrite(graph: ir.Graph, transpose: ir.Node) -> None:
    chain = quantizing_chain(transpose.inputs[0])
    assert chain is not None
    first, last = chain[0], chain[-1]
    last.outputs[0].shape = transpose.outputs[0].shape
    ir.convenience.replace_all_uses_with(transpose.outputs[0], last.outputs[0])
    transpose.replace_input_with(0, read_at(first, 0))
    first.replace_input_with(0, transpose.outputs[0])
    graph.remove(transpose)
    graph.insert_before(first, transpose)
    for step in chain[:-1]:
        step.outputs[0].shape = transpose.outputs[0].shape


transpose_before_quantizing = Rewrite("transpose_before_quantizing", "Transpose", obstacle, rewrite)
