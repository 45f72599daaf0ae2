"""A quantized MatMul of two axes, such as the head's, gets a third one between Unsqueeze and Squeeze.

    x [N, K] · W [K, M] = squeeze(unsqueeze(x) [N, 1, K] · W)

ONNX Runtime makes a MatMul of two axes and its bias a Gemm, which needs an INT32 bias to stay in integers: the head
would dequantize its weights in each run.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.export.passes.windows import start_with
from fimaq_deploy.graph.edit import (
    has_one_scale,
    is_integer_weight,
    is_operator,
    maker,
    quantizing_chain,
    rank,
    read_at,
    replace,
    sizes,
    stored_axes,
    typed,
)


def obstacle(product: ir.Node) -> str | None:
    chain = quantizing_chain(product.inputs[0])
    if chain is None:
        return "its input is not quantized, or something else reads it"
    if not is_integer_weight(maker(product.inputs[1])) or rank(product.inputs[1]) != 2:
        return "its weights are not a matrix of stored integers"
    if rank(product.inputs[0]) != 2:
        return "its input has not two axes"
    if not has_one_scale(chain):
        return "its input has a scale for each channel, or one that is not stored"
    return None


def rewrite(graph: ir.Graph, product: ir.Node) -> None:
    chain = quantizing_chain(product.inputs[0])
    assert chain is not None
    axes, (batch, width) = stored_axes(graph, [1]), sizes(read_at(product, 0))
    tape = Tape()
    start_with(graph, chain, tape, tape.op("Unsqueeze", [chain[0].inputs[0], axes]), [batch, 1, width])
    result = product.outputs[0]
    uses = list(result.uses())
    biased = len(uses) == 1 and is_operator(uses[0].node, "Add") and not result.is_graph_output()
    _drop_axis(graph, [product, uses[0].node] if biased else [product], axes)


def _drop_axis(graph: ir.Graph, nodes: list[ir.Node], axes: ir.Value) -> None:
    """Squeeze the result of nodes that run one after another."""
    last, result = nodes[-1], nodes[-1].outputs[0]
    squeeze = ir.node("Squeeze", [result, axes])
    squeezed = typed(squeeze.outputs[0], result.dtype, result.shape)
    graph.insert_after(last, squeeze)
    replace(result, squeezed)
    squeeze.replace_input_with(0, result)
    for node in nodes:
        batch, width = sizes(node.outputs[0])
        node.outputs[0].shape = ir.Shape([batch, 1, width])


rows_as_batch = Rewrite("rows_as_batch", "MatMul", obstacle, rewrite)
