"""The largest value that a graph computes on some images: whether float16 holds it is judged as for modules."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fimaq_deploy.calibration.findings.float_range import Peak
from fimaq_deploy.graph_calibration.segments import Array, Running

_IGNORED = frozenset({"Constant", "DequantizeLinear", "Cast"})


def largest_values(model: ir.Model, batches: Sequence[Array]) -> Peak:
    """Of every float result of every operator on batches of images; hidden scores, infinite, are not counted."""
    names = [
        str(node.outputs[0].name)
        for node in model.graph
        if node.outputs[0].dtype is ir.DataType.FLOAT and node.op_type not in _IGNORED
    ]
    kinds = {str(node.outputs[0].name): str(node.name) for node in model.graph}

    def measure(graph: ir.Graph) -> None:
        """Put the largest absolute value behind each: a number leaves the session, not a tensor."""
        values = {str(value.name): value for node in graph for value in node.outputs}
        for name in names:
            absolute = ir.node("Abs", [values[name]], name=f"{name}.abs")
            largest = ir.node("ReduceMax", absolute.outputs, attributes={"keepdims": 0}, name=f"{name}.largest")
            absolute.outputs[0].name, largest.outputs[0].name = f"{name}.abs", f"{name}.largest"
            for node in (absolute, largest):
                node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
                graph.append(node)

    peak = Peak("the graph", "", 0.0)
    (images,) = model.graph.inputs
    with Running(model) as running:
        run = running.piece(str(images.name), [f"{name}.largest" for name in names], measure)
        for batch in batches:
            for name, value in zip(names, run(batch, batch), strict=True):
                if float(value) != float("inf") and not float(value) <= peak.value:
                    peak = Peak("the graph", kinds[name], float(value))
    return peak
