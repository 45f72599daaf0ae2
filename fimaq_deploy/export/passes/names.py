"""Names as the model's own: of tensors, and of nodes, which a runtime's profile shows."""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import require, whole

_SCOPES = "pkg.torch.onnx.name_scopes"


@whole
def name_tensors(model: ir.Model) -> bool:
    """Stored tensors are named as in the model that was wrapped to be quantized."""
    wrapped = [value for value in model.graph.initializers.values() if value.name != without_wrappers(value.name or "")]
    names = {without_wrappers(name) for name in model.graph.initializers}
    require(len(names) == len(model.graph.initializers), "two tensors would have one name")
    for value in wrapped:
        value.name = without_wrappers(value.name or "")
    return bool(wrapped)


@whole
def name_nodes(model: ir.Model) -> bool:
    """Nodes are named after the module that they come from: `blocks.0.attn/MatMul_1`.

    A graph in which the exporter noted no modules keeps the names that it has.
    """
    if not any(_SCOPES in node.metadata_props for node in model.graph):
        return False
    module, seen = "", Counter[str]()
    for node in model.graph:
        module = _module_of(node, module)
        name = f"{module}/{node.op_type}".lstrip("/")
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
    return True


def _module_of(node: ir.Node, previous: str) -> str:
    """What the exporter noted, or the module of the node before where a rewrite lost it."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return without_wrappers(scopes[-2]) if len(scopes) > 1 and not scopes[-2].startswith("_") else previous


def without_wrappers(name: str) -> str:
    """A module or tensor name as the timm model has it."""
    while name == "model" or name.startswith("model."):
        name = name.removeprefix("model").removeprefix(".")
    return name
