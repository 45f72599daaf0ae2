"""A graph that was exported for one batch size, for any.

A Reshape to stored numbers gets -1 in its first place, where the batch is, and the numbers that it had everywhere else.
A constant of one row an image (a class token that was expanded while exporting) is expanded to the images there are.
Whether that is right is proved on images (`proof`): a file in which the batch is elsewhere is refused there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.edit import nodes_of, numpy_of, optional_at, read_at, stored, stored_axes, typed
from fimaq_deploy.graph_calibration.values import depending_on


def free_batch(path: Path, model: ir.Model, batch: int) -> None:
    """Let a graph take any batch. Its shapes must be known, all of the batch that it was exported for.

    Raises:
        UserError: a shape that cannot be freed.
    """
    graph = model.graph
    made = depending_on(graph, graph.inputs)
    for node in nodes_of(graph, "Reshape"):
        if node.outputs[0] in made:
            _free_reshape(path, graph, node, batch)
    for node in nodes_of(graph, "Concat"):
        _expand_rows(graph, node, batch, made)
    for node in nodes_of(graph, "Expand"):
        target = numpy_of(optional_at(node, 1))
        if node.outputs[0] in made and target is not None and len(target) and target[0] == batch:
            freed = target.copy()
            freed[0] = 1
            node.replace_input_with(1, _shape(graph, node, freed))
    (images,) = graph.inputs
    assert images.shape is not None
    images.shape = ir.Shape(["batch", *images.shape[1:]])
    for value in (*(value for node in graph for value in node.outputs), *graph.outputs):
        value.shape = None


def _free_reshape(path: Path, graph: ir.Graph, node: ir.Node, batch: int) -> None:
    shape, target = node.outputs[0].shape, numpy_of(optional_at(node, 1))
    if target is None:
        return  # computed from shapes, which follow the batch
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise UserError(f"{path} is for batches of {batch} and '{node.name}' hides its shape: export a free batch")
    sizes = [int(size) for size in shape]  # type: ignore[arg-type]
    if not sizes or sizes[0] % batch:
        raise UserError(
            f"{path} is for batches of {batch}, and '{node.name}' has none in its first place: export a free batch"
        )
    node.attributes.pop("allowzero", None)
    node.replace_input_with(1, _shape(graph, node, np.array([-1, *sizes[1:]], np.int64)))


def _shape(graph: ir.Graph, node: ir.Node, numbers: np.ndarray) -> ir.Value:
    return stored(graph, f"{node.name or node.outputs[0].name}.shape", numbers.astype(np.int64))


def _expand_rows(graph: ir.Graph, node: ir.Node, batch: int, made: set[ir.Value]) -> None:
    """Constants that stand beside activations, along another axis than the batch's."""
    live = [value for value in node.inputs if value is not None and value in made]
    axis, rank = node.attributes.get_int("axis", 0), len(node.outputs[0].shape or ())
    if not live or len(live) == len(node.inputs) or axis % max(rank, 1) == 0:
        return
    first = ir.node("Shape", [live[0]], attributes={"start": 0, "end": 1})
    typed(first.outputs[0], ir.DataType.INT64, ir.Shape([1]))
    nodes = [first]
    for place, value in enumerate(node.inputs):
        rows = numpy_of(value)
        if value in made or value is None or rows is None or len(rows) != batch or not (rows == rows[:1]).all():
            continue
        one = stored(graph, f"{value.name}.row", np.ascontiguousarray(rows[:1]))
        shape = ir.node("Concat", [first.outputs[0], stored_axes(graph, list(rows.shape[1:]))], attributes={"axis": 0})
        expand = ir.node("Expand", [one, shape.outputs[0]])
        typed(shape.outputs[0], ir.DataType.INT64, ir.Shape([rows.ndim]))
        typed(expand.outputs[0], value.dtype, None)
        nodes += [shape, expand]
        node.replace_input_with(place, expand.outputs[0])
    if len(nodes) > 1:
        for number, one_node in enumerate(nodes):
            one_node.name = f"{node.name or node.outputs[0].name}/rows_{number}"
            one_node.outputs[0].name = f"{one_node.name}:0"
        graph.insert_before(node, nodes)
    assert read_at(node, 0) is not None
