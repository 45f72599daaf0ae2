"""Clips between a softmax and its QuantizeLinear that change nothing: they keep TensorRT from fusing INT8 attention.

    Clip(p, low, high) then round(p / s) + z, saturated at M   =   round(p / s) + z, saturated at M

for p in [0, 1] where low <= 0, and where what lies above `high` either does not occur (1 < high + s / 2: half a step
above the bound still rounds to the bound's own integer) or saturates by itself (s (M - z) < high + s / 2).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import bypass, is_operator, maker, numpy_of, optional_at


def obstacle(clip: ir.Node) -> str | None:
    if maker(clip.inputs[0], "Softmax") is None:
        return "it does not read a softmax"
    readers = [use.node for use in clip.outputs[0].uses()]
    if len(readers) != 1 or not is_operator(readers[0], "QuantizeLinear") or clip.outputs[0].is_graph_output():
        return "what reads it is not one QuantizeLinear"
    quantize = readers[0]
    constants = [numpy_of(value) for value in (optional_at(clip, 1), optional_at(clip, 2), *quantize.inputs[1:3])]
    if len(constants) < 4 or any(constant is None or constant.size != 1 for constant in constants):
        return "its bounds, the scale or the zero point are not single stored numbers"
    low, high, scale, zero_point = (constant for constant in constants if constant is not None)
    return _cut(float(low.item()), float(high.item()), float(scale.item()), zero_point)


def _cut(low: float, high: float, scale: float, zero_point: np.ndarray) -> str | None:
    saturation = scale * (float(np.iinfo(zero_point.dtype).max) - float(zero_point.item()))
    if low > 0:
        return f"it raises what is below {low:g}"
    if high + scale / 2 <= min(1.0, saturation):
        return f"it cuts what is above {high:g}"
    return None


def rewrite(graph: ir.Graph, clip: ir.Node) -> None:
    bypass(clip)


drop_idle_clips = Rewrite("drop_idle_clips", "Clip", obstacle, rewrite)
