"""Clip → QuantizeLinear becomes QuantizeLinear → Clip of the integers.

    Q(Clip(x, a, b)) = Clip(Q(x), Q(a), Q(b)),   Q(x) = saturate(round(x / s) + z)

as rounding and saturation keep order. It holds where Q(a) and Q(b) lie in the container, which the Clip was written
for; what the Clip of floats would have cut, the container's saturation and the other Clip cut to the same integer.

A Clip of floats between attention and a QuantizeLinear keeps TensorRT-RTX 1.7.1 from fusing attention into one kernel,
a Clip of the integers does not (`docs/log.md` has the layer plans).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fimaq_deploy.export.passes.rewrite import Rewrite
from fimaq_deploy.graph.edit import maker, numpy_of, optional_at, read_at, stored_scalar


def obstacle(quantize: ir.Node) -> str | None:
    clip = maker(quantize.inputs[0], "Clip")
    if clip is None:
        return "no Clip stands before it"
    if len(clip.outputs[0].uses()) > 1 or clip.outputs[0].is_graph_output():
        return "something else reads what is clipped"
    if quantize.outputs[0].is_graph_output():
        return "it makes an output of the graph"
    found = [numpy_of(optional_at(clip, index)) for index in (1, 2)]
    found += [numpy_of(optional_at(quantize, index)) for index in (1, 2)]
    if any(constant is None or constant.size != 1 for constant in found):
        return "bounds, scale and zero point are not single stored numbers"
    return None


def rewrite(graph: ir.Graph, quantize: ir.Node) -> None:
    clip = maker(quantize.inputs[0], "Clip")
    assert clip is not None
    bounds = [stored_scalar(graph, number) for number in _integers(quantize, clip)]
    quantize.replace_input_with(0, clip.inputs[0])
    integers = quantize.outputs[0]
    behind = clip_of(integers, bounds, clip.name)
    ir.convenience.replace_all_uses_with(integers, behind.outputs[0])
    behind.replace_input_with(0, integers)
    graph.insert_after(quantize, behind)
    graph.remove(clip, safe=True)


def _integers(quantize: ir.Node, clip: ir.Node) -> list[np.ndarray]:
    scale, zero_point = numpy_of(read_at(quantize, 1)), numpy_of(read_at(quantize, 2))
    floats = [numpy_of(read_at(clip, index)) for index in (1, 2)]
    assert scale is not None and zero_point is not None
    limits = np.iinfo(zero_point.dtype)
    exact = [np.rint(np.float64(bound) / np.float64(scale)) + zero_point for bound in floats if bound is not None]
    return [np.array(np.clip(number, limits.min, limits.max), zero_point.dtype) for number in exact]


def clip_of(value: ir.Value, bounds: list[ir.Value], name: str | None) -> ir.Node:
    """A Clip of a value; it and its result have the same name."""
    output = ir.Value(name=name, shape=value.shape, type=value.type)
    return ir.Node("", "Clip", [value, *bounds], outputs=[output], name=name)


clip_integers = Rewrite("clip_integers", "QuantizeLinear", obstacle, rewrite)
