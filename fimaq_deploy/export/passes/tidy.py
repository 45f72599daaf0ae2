"""What is left over goes: nodes that nothing reads, opsets that nothing needs, and what the exporter noted."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes

from fimaq_deploy.export.passes.rewrite import require, whole


@whole
def remove_unused(model: ir.Model) -> bool:
    """Nodes whose results nothing reads. Stored tensors that only they read go with them."""
    changed = passes.RemoveUnusedNodesPass()(model).modified
    outputs = set(model.graph.outputs)
    idle = [node.name for node in model.graph if not any(v.uses() or v in outputs for v in node.outputs)]
    require(not idle, f"nothing reads {idle}")
    return changed


@whole
def forget_notes(model: ir.Model) -> bool:
    """No metadata, doc strings or opsets without a reader; every value and node has a name of its own."""
    changed = Sequential(
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    )(model).modified
    noted = bool(model.metadata_props or model.graph.metadata_props)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    require(len(names) == len(set(names)), "two values have one name")
    return changed or noted
