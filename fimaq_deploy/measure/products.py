"""The products of a file with stored weights, each alone: what it does, and how long it takes in a runtime of this
machine, as the file has it and in floats.

Each becomes a graph of its own: its quantizers, itself and its bias, in the shapes that it has for one image. Products
of equal shapes are timed once. Graphs run in turns, so that a clock that drifts meets all of them; what a call takes
without a product, measured on a graph that hands its input on, is taken off. The best of several rounds counts, because
what disturbs a run only adds to it: on a busy machine medians of such short runs are those of its other work.

Not covered: what a runtime gains when it fuses a product with what is around it, and products of several images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fimaq_deploy.engines.runtimes import Runtime
from fimaq_deploy.graph.edit import typed
from fimaq_deploy.graph.products import Product
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.graph.values import stored_tensor
from fimaq_deploy.measure.latency import median_interval
from fimaq_deploy.measure.roofline import multiplications

_WEIGHTS = ".q_weight"
_LEAST_ROUNDS, _MOST_ROUNDS, _SECONDS, _WARM_UP = 12, 200, 2.0, 2
_GROUPS = 6  # of rounds; the fewest that give a median its 95 % interval
_SHORTEST = 1e-9  # seconds: a product that takes no longer than a call

Seconds = NDArray[np.float64]
Numbers = NDArray[np.float32]
_Key = tuple[object, str]  # what products of equal duration have in common, and which of their graphs


@dataclass(frozen=True, eq=False)
class Piece:
    """A product with stored weights, for one image.

    operations: multiplications and additions. weights, reads, writes: how many numbers of each.
    """

    layer: str
    product: Product
    opset: int
    operations: int
    weights: int
    reads: int
    writes: int

    @property
    def is_integer(self) -> bool:
        return self.product.is_integer


@dataclass(frozen=True)
class Timed:
    """Seconds of each layer's product, [groups]: the best of each group of rounds, in the file and in float32."""

    own: Mapping[str, Seconds]
    floats: Mapping[str, Seconds]

    def speed(self) -> tuple[float, tuple[float, float]]:
        """How many times as fast as in floats all of them together are at their best, and the 95 % interval of the
        median over groups, wide enough to hold that.
        """
        floats, own = (np.array([*each.values()]) for each in (self.floats, self.own))
        best = float(floats.min(1).sum() / own.min(1).sum())
        low, high = median_interval((floats.sum(0) / own.sum(0)).tolist())
        return best, (min(low, best), max(high, best))


def pieces_of(path: str | Path) -> list[Piece]:
    """Every product with stored weights of a file that this package wrote. A layer that is called twice has two.

    Raises:
        UserError: not an ONNX model, or a product whose shape the file does not determine.
    """
    structure = read_structure(path, 1)
    found = []
    for product in structure.products:
        if product.weight is None or not product.activations:
            continue
        values = product.activations[0].value, product.weight.value, product.node.outputs[0]
        reads, weights, writes = map(_count, values)
        operations = 2 * multiplications(path, product)
        found.append(Piece(_layer(product), product, structure.opset, operations, weights, reads, writes))
    return found


def time_products(pieces: Iterable[Piece], runtime: Runtime, clock: Callable[[], float] = time.perf_counter) -> Timed:
    """How long each takes in a runtime that loads ONNX files here.

    clock: seconds.
    """
    shapes: dict[object, Piece] = {}
    taken = [(piece.layer, shape) for piece in pieces for shape in [_shape(piece)] if shapes.setdefault(shape, piece)]
    graphs = {(shape, kind): make(piece) for shape, piece in shapes.items() for kind, make in _GRAPHS.items()}
    inputs = {(shape, kind): _numbers(_sizes(piece)) for shape, piece in shapes.items() for kind in _GRAPHS}
    times = _in_turns(graphs, inputs, runtime, clock)
    own, floats = dict[str, Seconds](), dict[str, Seconds]()
    for layer, shape in taken:
        lost = times[shape, "call"].min()
        plain = np.maximum(_best(times[shape, "floats"]) - lost, _SHORTEST)
        alone = np.maximum(_best(times[shape, "own"]) - lost, _SHORTEST) if shapes[shape].is_integer else plain
        own[layer], floats[layer] = own.get(layer, 0) + alone, floats.get(layer, 0) + plain
    return Timed(own, floats)


def _best(rounds: Seconds) -> Seconds:
    return np.array([group.min() for group in np.array_split(rounds, _GROUPS)])


def _in_turns(
    graphs: Mapping[_Key, ir.Model], inputs: Mapping[_Key, Numbers], runtime: Runtime, clock: Callable[[], float]
) -> dict[_Key, Seconds]:
    with TemporaryDirectory() as folder:
        runs = {
            key: (runtime.load(write_model(model, Path(folder) / f"{number}.onnx")), inputs[key])
            for number, (key, model) in enumerate(graphs.items())
        }
        times: dict[_Key, list[float]] = {key: [] for key in runs}
        for runner, images in runs.values():
            for _ in range(_WARM_UP):
                runner(images)
        ends = time.perf_counter() + _SECONDS
        for done in range(_MOST_ROUNDS):
            if done >= _LEAST_ROUNDS and time.perf_counter() > ends:
                break
            for key, (runner, images) in runs.items():
                started = clock()
                runner(images)
                times[key].append(clock() - started)
        return {key: np.array(each) for key, each in times.items()}


def _numbers(shape: Sequence[int]) -> Numbers:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _sizes(piece: Piece) -> list[int]:
    """Of what it reads."""
    return [int(str(size)) for size in piece.product.activations[0].value.shape or ()]


def _layer(product: Product) -> str:
    stored = product.weight.stored if product.weight is not None else None
    name = str(stored.name) if stored is not None else ""
    return name.removesuffix(_WEIGHTS) if name.endswith(_WEIGHTS) else str(product.node.name).rpartition("/")[0]


def _count(value: ir.Value) -> int:
    assert value.shape is not None
    return int(np.prod([size for size in value.shape if isinstance(size, int)]))


def _shape(piece: Piece) -> object:
    """What two products have in common that take equally long."""
    node = piece.product.node
    attributes = tuple((name, str(one.value)) for name, one in sorted(node.attributes.items()))
    chain = tuple((one.op_type, str(one.inputs[0].dtype if one.inputs[0] else "")) for one in _chain(piece.product))
    values = tuple(str(value.shape) for value in node.inputs if value is not None)
    return node.op_type, attributes, chain, values, piece.is_integer, _bias(piece.product) is not None


def _chain(product: Product) -> list[ir.Node]:
    """The quantizers of its activation, the first one first."""
    found, value = list[ir.Node](), product.activations[0].value
    while (node := value.producer()) is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        first, *others = node.inputs
        if first is None or any(one is not None and stored_tensor(one) is None for one in others):
            break
        found.insert(0, node)
        value = first
    return found


def _bias(product: Product) -> ir.Node | None:
    """The sum with a stored bias that nothing else stands before."""
    uses = list(product.node.outputs[0].uses())
    add = uses[0].node if len(uses) == 1 else None
    if add is None or add.op_type != "Add":
        return None
    other = next((value for value in add.inputs if value is not product.node.outputs[0]), None)
    return add if stored_tensor(other) is not None else None


def _as_written(piece: Piece) -> ir.Model:
    chain = _chain(piece.product)
    start = chain[0].inputs[0] if chain else piece.product.activations[0].value
    return _cut(piece, start)


def _in_floats(piece: Piece) -> ir.Model:
    """The same with stored floats, and nothing before it."""
    model = _cut(piece, piece.product.activations[0].value)
    weight, at = piece.product.weight, piece.product.node
    assert weight is not None and weight.value.shape is not None
    place = next(number for number, value in enumerate(at.inputs) if value is weight.value)
    node = next(one for one in model.graph if one.op_type == at.op_type)
    array = _numbers([int(str(size)) for size in weight.value.shape])
    value = ir.Value(name="weights", const_value=ir.tensor(array, name="weights"))
    typed(value, ir.DataType.FLOAT, ir.Shape(array.shape))
    model.graph.register_initializer(value)
    node.replace_input_with(place, value)
    return model


def _call(piece: Piece) -> ir.Model:
    """A graph that hands on what the product reads."""
    x, y = (typed(ir.Value(name=name), ir.DataType.FLOAT, _any_batch(_sizes(piece))) for name in ("x", "y"))
    node = ir.Node("", "Identity", [x], outputs=[y])
    return ir.Model(ir.Graph([x], [y], nodes=[node], opset_imports={"": piece.opset}, name="call"), ir_version=10)


def _cut(piece: Piece, start: ir.Value | None) -> ir.Model:
    """From a value to what the product and its bias make of it."""
    add = _bias(piece.product)
    result = (add or piece.product.node).outputs[0]
    assert start is not None and result.graph is not None
    graph = ir.convenience.extract(result.graph, [start], [result])
    graph.opset_imports[""] = piece.opset
    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value in (*graph.inputs, *graph.outputs):
        typed(value, ir.DataType.FLOAT, _any_batch(_sizes(piece)) if value.is_graph_input() else None)
    return ir.Model(graph, ir_version=10)


def _any_batch(sizes: Sequence[int]) -> ir.Shape:
    """As files have it: with a first size that is known ONNX Runtime makes another product of it (1.31)."""
    return ir.Shape(["N", *sizes[1:]])


_GRAPHS: dict[str, Callable[[Piece], ir.Model]] = {"own": _as_written, "floats": _in_floats, "call": _call}
