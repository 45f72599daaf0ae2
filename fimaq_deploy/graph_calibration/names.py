"""Nodes named after the modules that they come from, `blocks.0.attn.qkv/MatMul`, whichever exporter wrote them.

torch's newer exporter notes modules beside a node; its older one writes them into the name, every list twice:
`/blocks/blocks.0/attn/qkv/MatMul`. Names of others are kept, as far as no two are alike.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from fimaq_deploy.export.passes.names import name_nodes

_SLASH = "/"


def name_by_module(model: ir.Model) -> None:
    """Name every node, no two alike, and what has no name after its node."""
    if not name_nodes(model):
        for node in model.graph:
            node.name = _by_scope(node)
    seen = Counter[str]()
    taken = {node.name for node in model.graph}
    for node in model.graph:
        name = str(node.name)
        seen[name] += 1
        while seen[name] > 1 and (fresh := f"{name}_{seen[name] - 1}") in taken:
            seen[name] += 1
        if seen[name] > 1:
            node.name = fresh
            taken.add(fresh)
    for node in model.graph:
        for number, value in enumerate(node.outputs):
            value.name = value.name or f"{node.name}:{number}"


def _by_scope(node: ir.Node) -> str:
    name = str(node.name or "")
    if not name.startswith(_SLASH):
        return name or node.op_type
    *scopes, operator = name.strip(_SLASH).split(_SLASH)
    following = [*scopes, operator][1:]
    kept = [one for one, after in zip(scopes, following, strict=True) if not after.startswith(f"{one}.")]
    return f"{'.'.join(kept)}/{operator}" if kept else operator


def module_of(node: ir.Node) -> str:
    """The module in a node's name; the whole name where there is none."""
    return str(node.name).rpartition(_SLASH)[0] or str(node.name)
