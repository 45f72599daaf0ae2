"""What the passes share that put a tensor into another shape before it is quantized."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.tape import Tape

from fimaq_deploy.graph.edit import read_at, typed


def start_with(graph: ir.Graph, chain: list[ir.Node], tape: Tape, value: ir.Value, shape: list[Any]) -> None:
    """Put the tape before a quantizing chain, which then quantizes the value."""
    typed(value, read_at(chain[0], 0).dtype, ir.Shape(shape))
    graph.insert_before(chain[0], tape.nodes)
    chain[0].replace_input_with(0, value)
    for step in chain:
        step.outputs[0].shape = value.shape
