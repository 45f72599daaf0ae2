"""Graph passes between torch's exporter and the file, and the postcondition that the file must meet."""

from __future__ import annotations

import ast
from collections import Counter

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from onnxscript.optimizer import optimize_ir

from fimaq_deploy.graph.edit import (
    _CONSUMERS_OF_WEIGHTS,
    bypass,
    has_integer_weights,
    numpy_of,
    producer_type,
    quantizing_chain,
    scalar,
)

# A folded constant may not have more elements than this (unless it replaces as many): Swin's bias and mask for
# 144-token windows stay two constants and one Add, which every runtime folds when it loads.
LARGEST_CONSTANT = 2**20


_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def clean(model: ir.Model) -> None:
    """Everything the exporter left for later, in place."""
    rename_initializers(model.graph)
    pack_int4(model.graph)
    optimize_ir(model, should_fold=lambda n: n.op_type not in _QUANTIZERS, output_size_limit=LARGEST_CONSTANT)
    drop_idle_clips(model.graph)
    drop_idle_pads(model.graph)


def finish(model: ir.Model) -> None:
    """Remove what nothing reads, name the nodes, and forget what the exporter noted. In place, after `clean`."""
    passes.RemoveUnusedNodesPass()(model)
    _name_nodes(model.graph)
    Sequential(
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    )(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _name_nodes(graph: ir.Graph) -> None:
    """Name nodes after the module that they come from, as a runtime's profile will show: `blocks.0.attn/MatMul_1`."""
    module, seen = "", Counter[str]()
    for node in graph:
        module = _module_of(node, module)
        name = f"{module}/{node.op_type}".lstrip("/")
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _module_of(node: ir.Node, previous: str) -> str:
    """What the exporter noted, or the module of the node before where a rewrite lost it."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    return without_wrappers(scopes[-2]) if len(scopes) > 1 and not scopes[-2].startswith("_") else previous


def without_wrappers(name: str) -> str:
    """A module or tensor name as the timm model has it."""
    while name == "model" or name.startswith("model."):
        name = name.removeprefix("model").removeprefix(".")
    return name


def rename_initializers(graph: ir.Graph) -> None:
    for value in list(graph.initializers.values()):
        assert value.name is not None
        value.name = without_wrappers(value.name)


def pack_int4(graph: ir.Graph) -> None:
    """Store the weights that are dequantized in blocks as INT4; torch has no such type and holds them in INT8."""
    for node in graph:
        if node.op_type == "DequantizeLinear" and node.attributes.get_int("block_size", 0):
            weights = node.inputs[0]
            assert weights is not None and weights.const_value is not None
            if weights.dtype is not ir.DataType.INT4:
                packed = ir.tensor(weights.const_value.numpy().astype(ml_dtypes.int4), name=weights.name)
                weights.const_value, weights.dtype = packed, ir.DataType.INT4


def drop_idle_clips(graph: ir.Graph) -> None:
    """Remove Clips between a softmax and its QuantizeLinear that change nothing: they keep TensorRT from fusing INT8
    attention. A softmax lies in [0, 1], and what exceeds the container's last integer saturates by itself.
    """
    for node in graph:
        if node.op_type == "Clip" and producer_type(node.inputs[0]) == "Softmax" and _is_idle(node):
            bypass(node)


def _is_idle(clip: ir.Node) -> bool:
    """Whether a Clip of values in [0, 1] leaves every integer that its QuantizeLinear writes as it is."""
    (use, *others) = clip.outputs[0].uses()
    if others or use.node.op_type != "QuantizeLinear":
        return False
    low, high, scale = (scalar(value) for value in (*clip.inputs[1:3], use.node.inputs[1]))
    zero_point = numpy_of(use.node.inputs[2])
    assert zero_point is not None
    saturation = scale * (float(np.iinfo(zero_point.dtype).max) - float(zero_point))
    # Half a step above the bound still rounds to the bound's own integer.
    return low <= 0 and high + scale / 2 > min(1.0, saturation)


def transpose_before_quantizing(graph: ir.Graph) -> None:
    """Clip → Q → DQ → Transpose becomes Transpose → Clip → Q → DQ, the same numbers.

    ONNX Runtime inserts a Q/DQ pair after a Transpose of a DQ, and where it also rewrites INT8 to UINT8 it forgets the
    pair's type and refuses its own graph (1.31, opset 21). TensorRT needs the opposite: with the Transpose first its
    qkv projection falls back to FP16 (RTX 1.7.1, measured).
    """
    for node in [node for node in graph if node.op_type == "Transpose"]:
        if (chain := quantizing_chain(node.inputs[0])) is None:
            continue
        first, last = chain[0], chain[-1]
        last.outputs[0].shape = node.outputs[0].shape
        ir.convenience.replace_all_uses_with(node.outputs[0], last.outputs[0])
        node.replace_input_with(0, first.inputs[0])
        first.replace_input_with(0, node.outputs[0])
        graph.remove(node)
        graph.insert_before(first, node)
        for step in chain[:-1]:
            step.outputs[0].shape = node.outputs[0].shape


def drop_idle_pads(graph: ir.Graph) -> None:
    """Remove Pads by nothing, which timm's Swin has in every block and which runtimes execute as copies."""
    for node in graph:
        pads = numpy_of(node.inputs[1]) if node.op_type == "Pad" else None
        if pads is not None and not pads.any():
            bypass(node)


def require_standard(model: ir.Model, weights: int) -> None:
    """The postcondition of an export.

    weights: how many weight tensors must have stayed integers.

    Raises:
        RuntimeError: the exporter broke its promise; this is our bug.
    """
    foreign = {node.domain for node in model.graph if node.domain} | {
        function.name for function in model.functions.values()
    }
    problems = [f"operators of other domains: {sorted(foreign)}"] if foreign else []
    kept = sum(1 for node in model.graph if node.op_type in _CONSUMERS_OF_WEIGHTS and has_integer_weights(node))
    if kept != weights:
        problems.append(f"{kept} of {weights} weight tensors stayed integers and feed their MatMul or Conv directly")
    wrong = [v.name for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype is not ir.DataType.FLOAT]
    if wrong:
        problems.append(f"not float32: {wrong}")
    if problems:
        raise RuntimeError(f"export failed its postcondition: {'; '.join(problems)}")
