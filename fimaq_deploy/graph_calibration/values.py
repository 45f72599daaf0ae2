"""What is known of values: constants as initializers, types and shapes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from fimaq_deploy.graph.edit import nodes_of, numpy_of, optional_at, stored

_NOT_DATA = frozenset({"Shape", "Size"})


def lifted(model: ir.Model) -> None:
    """Functions inlined, constants as initializers."""
    if model.functions:
        passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def take_in(graph: ir.Graph) -> None:
    """Numbers that lie beside the file, mapped into memory."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def split_stored(graph: ir.Graph) -> bool:
    """Pieces of stored tensors become stored tensors, and it is said whether there were any.

    Folding leaves a Split, which has several results; torch's exporter writes one for the q, k and v of a pool.
    """
    found = False
    for node in nodes_of(graph, "Split"):
        whole, given = numpy_of(node.inputs[0]), optional_at(node, 1)
        sizes = numpy_of(given)
        if whole is None or (given is not None and sizes is None) or any(one.is_graph_output() for one in node.outputs):
            continue
        axis, count = node.attributes.get_int("axis", 0), len(node.outputs)
        length = -(-whole.shape[axis] // count)
        ends = [length * number for number in range(1, count)] if sizes is None else np.cumsum(sizes)[:-1]
        for value, part in zip(node.outputs, np.split(whole, ends, axis), strict=True):
            piece = stored(graph, f"{value.name}.stored", np.ascontiguousarray(part))
            ir.convenience.replace_all_uses_with(value, piece)
        graph.remove(node, safe=True)
        found = True
    return found


def inferred(model: ir.Model) -> None:
    """Types and shapes, as far as they follow from the input's. What was known before is found again, or better."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)


def depending_on(graph: ir.Graph, values: Iterable[ir.Value]) -> set[ir.Value]:
    """The values whose numbers depend on those of others: not through shapes alone."""
    made = set(values)
    for node in graph:
        if node.op_type not in _NOT_DATA and any(value in made for value in node.inputs if value is not None):
            made.update(node.outputs)
    return made


def single_values(graph: ir.Graph) -> list[ir.Value | None]:
    """Before each node, the one activation that was computed and is still read; None where there are several."""
    nodes, made = list(graph), depending_on(graph, graph.inputs)
    born = {value: place + 1 for place, node in enumerate(nodes) for value in node.outputs} | dict.fromkeys(
        graph.inputs, 0
    )
    died = {value: len(nodes) for value in graph.outputs}
    for place, node in enumerate(nodes):
        if node.op_type not in _NOT_DATA:
            died.update({value: max(place, died.get(value, 0)) for value in node.inputs if value in made})
    starts, ends = list[list[ir.Value]](), list[list[ir.Value]]()
    for listed in (starts, ends):
        listed.extend([] for _ in range(len(nodes) + 2))
    for value, last in died.items():
        if value in made:
            starts[born[value]].append(value)
            ends[last + 1].append(value)
    now, found = dict[ir.Value, None](), []
    for place in range(len(nodes)):
        now.update(dict.fromkeys(starts[place]))
        for value in ends[place]:
            now.pop(value, None)
        found.append(next(iter(now)) if len(now) == 1 else None)
    return found
