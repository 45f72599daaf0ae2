"""A copy of an exported file that also outputs what every stage hands to the next, and the integers inside.

Between two stages exactly one activation is alive: everything later depends on the images through it alone. The
exporter names nodes after their modules and keeps the order of execution, so that value is found from the names.
Nothing is exported again: the file that is checked is the file that is shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.graph.saving import write_model

_NOT_DATA = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Taps:
    """Names of a copy's outputs.

    stages: one for each stage but the last, in order. outputs: of the model itself.
    integers: those of each activation quantizer, or the values of its format, by the name of its module; empty where
        they were not asked for.
    """

    stages: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, str]


def write_with_taps(path: str | Path, stages: Sequence[str], out: str | Path, *, integers: bool) -> Taps:
    """Write the copy.

    stages: names in execution order, as `QuantizedModel.stages` has them.
    integers: also output what every QuantizeLinear writes. A runtime then cannot fuse it away.

    Raises:
        UserError: the file is not of this model: a stage has no node, or more than one activation leaves it.
    """
    model = load_model(path)
    nodes, outputs = list(model.graph), list(model.graph.outputs)
    # A stage that only hands on, as maps in the layout that they have, has no node: its input is the last output.
    places = _cuts(path, nodes, stages)
    values = [_only_one(path, model.graph, nodes, n) if n < len(nodes) else outputs[-1] for n in places]
    quantizers = [node for node in nodes if node.op_type == "QuantizeLinear"] if integers else []
    found = {str(node.name).rpartition("/")[0]: _read_out(model.graph, node) for node in quantizers}
    model.graph.outputs[:] = dict.fromkeys((*outputs, *values, *found.values()))
    write_model(model, Path(out))
    names, ends = (tuple(str(value.name) for value in each) for each in (values, outputs))
    return Taps(names, ends, {name: str(value.name) for name, value in found.items()})


def _read_out(graph: ir.Graph, quantize: ir.Node) -> ir.Value:
    """What a QuantizeLinear writes; 8- and 4-bit floats as float32, which NumPy has."""
    value = quantize.outputs[0]
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    if zero is None or zero.dtype is None or not zero.dtype.is_floating_point():
        return value
    shape, kind = value.shape, ir.TensorType(ir.DataType.FLOAT)
    seen = ir.Value(name=f"{value.name}_values", shape=shape, type=kind)
    to = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    graph.insert_after(quantize, ir.Node("", "Cast", [value], [to], outputs=[seen], name=f"{quantize.name}_values"))
    return seen


def _only_one(path: str | Path, graph: ir.Graph, nodes: Sequence[ir.Node], place: int) -> ir.Value:
    alive = _alive(graph, nodes, place)
    if len(alive) != 1:
        found = ", ".join(str(value.name) for value in alive) or "nothing"
        raise UserError(f"{path}: expected one activation before {nodes[place].name}, found {found}: another model?")
    return alive[0]


def _cuts(path: str | Path, nodes: Sequence[ir.Node], stages: Sequence[str]) -> list[int]:
    """The numbers of the nodes that every stage but the first begins with.

    The last stage begins behind the one before it, because the final norm is not named after the head.
    """
    places = {stage: [n for n, node in enumerate(nodes) if _belongs(node, stage)] for stage in stages[1:-1]}
    missing = [stage for stage, found in places.items() if not found]
    if missing:
        raise UserError(f"{path} has no node of stage '{missing[0]}': name a file that was exported from this model")
    return [found[0] for found in places.values()] + [places[stages[-2]][-1] + 1]


def _belongs(node: ir.Node, stage: str) -> bool:
    return str(node.name).startswith((f"{stage}.", f"{stage}/"))


def _alive(graph: ir.Graph, nodes: Sequence[ir.Node], place: int) -> list[ir.Value]:
    """The activations that were computed before a place and are read from there on."""
    made = set(graph.inputs)
    for node in nodes[:place]:
        if node.op_type not in _NOT_DATA and made.intersection(node.inputs):
            made.update(node.outputs)
    later = {value: None for node in nodes[place:] for value in node.inputs if node.op_type not in _NOT_DATA}
    return [value for value in later if value in made]
