"""Pads by nothing, which timm's Swin has in every block and which runtimes execute as copies: Pad(x, 0) = x."""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import bypass, numpy_of, optional_at


def obstacle(pad: ir.Node) -> str | None:
    pads = numpy_of(optional_at(pad, 1))
    if pads is None:
        return "how much it pads is not stored"
    if pads.any():
        return f"it pads by {pads.tolist()}"
    return "it makes an output of the graph" if pad.outputs[0].is_graph_output() else None


def rewrite(graph: ir.Graph, pad: ir.Node) -> None:
    bypass(pad)


drop_idle_pads = Rewrite("drop_idle_pads", "Pad", obstacle, rewrite)
