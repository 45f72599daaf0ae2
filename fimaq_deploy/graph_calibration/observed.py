"""Shapes as they are when a graph runs, where they cannot be inferred: an exporter may compute them on the way.

The graph runs on two batch sizes. A side that is the same in both is fixed; one that is as often in both as the batch
is the batch, or a multiple of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fimaq_deploy.graph_calibration.segments import Running

_BATCHES = (2, 3)
BATCH = "batch"


def observe_shapes(model: ir.Model, shape: tuple[int, int, int]) -> None:
    """Write the shape of every value. shape: (C, H, W) of the images."""
    (images,) = model.graph.inputs
    values = {str(value.name): value for node in model.graph for value in node.outputs}

    def ask(graph: ir.Graph) -> None:
        """A number leaves the session for each side, not a tensor."""
        for value in [value for node in graph for value in node.outputs if value.name in values]:
            node = ir.node("Shape", [value], name=f"{value.name}.shape")
            node.outputs[0].name, node.outputs[0].type = f"{value.name}.shape", ir.TensorType(ir.DataType.INT64)
            graph.append(node)

    with Running(model) as running:
        run = running.piece(str(images.name), [f"{name}.shape" for name in values], ask)
        pictures = [np.zeros((size, *shape), np.float32) for size in _BATCHES]
        seen = [run(batch, batch) for batch in pictures]
    for value, first, second in zip(values.values(), *seen, strict=True):
        if len(first) == len(second):
            value.shape = ir.Shape([_side(int(a), int(b)) for a, b in zip(first, second, strict=True)])


def _side(first: int, second: int) -> int | str:
    if first == second:
        return first
    times, rest = divmod(first, _BATCHES[0])
    if rest or times * _BATCHES[1] != second:
        return f"{first}_or_{second}"
    return BATCH if times == 1 else f"{times}*{BATCH}"
