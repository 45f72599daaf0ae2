"""A graph in pieces that one activation leads into, run through ONNX Runtime on stored activations.

Between two pieces exactly one activation is alive, so what a piece computes depends on the one before it through that
alone, and a block can be run again without the whole network. Nothing here is traced or differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.export.passes import run_passes
from fimaq_deploy.export.passes.transposes import transpose_before_quantizing
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.graph_calibration.values import single_values

Array = NDArray[Any]
Batches = Sequence[Array]


@dataclass(frozen=True)
class Segment:
    """source, result: names of the values that lead into it and out of it; result: None for the last one.

    nodes: names of its nodes.
    """

    source: str
    result: str | None
    nodes: frozenset[str]


def cut(graph: ir.Graph, wanted: Sequence[str]) -> list[Segment]:
    """The graph from its images to its outputs, with at least one of the wanted nodes in each piece but the last."""
    nodes, wanted_ones = list(graph), set(wanted)
    (images,) = graph.inputs
    found, start, source, since = list[Segment](), 0, str(images.name), False
    for place, single in enumerate(single_values(graph)):
        behind = place > 0 and nodes[place - 1].name in wanted_ones
        since = since or behind
        if since and not behind and single is not None and single.name != source:
            inside = frozenset(str(one.name) for one in nodes[start:place])
            found.append(Segment(source, str(single.name), inside))
            start, source, since = place, str(single.name), False
    found.append(Segment(source, None, frozenset(str(one.name) for one in nodes[start:])))
    return found


class Running:
    """Sessions of pieces of a graph. Use as a context manager: files of passing sessions lie in a folder of its own."""

    def __init__(self, model: ir.Model, threads: int | None = None) -> None:
        self._model, self._threads = model, threads
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> Running:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def piece(
        self, source: str, outputs: Sequence[str], edit: Callable[[ir.Graph], None] | None = None
    ) -> Callable[[Array, Array], list[Array]]:
        """What computes outputs from a batch of the source and of images.

        edit: what is done to the graph before, by names.
        """
        model = self._model.clone()
        graph = model.graph
        (images,) = graph.inputs
        values = _values(graph)
        if source != images.name:
            old = values[source]
            fed = ir.Value(name=f"{source}.fed", shape=old.shape, type=old.type)
            ir.convenience.replace_all_uses_with(old, fed)
            graph.inputs.append(fed)
        # What is wanted is named in the graph as it was: an edit puts quantizers behind values, not in their place.
        wanted = {name: values[name] for name in outputs if name in values}
        if edit is not None:
            edit(graph)
        made = _values(graph) | wanted
        graph.outputs[:] = [images if name == images.name else made[name] for name in outputs]
        passes.RemoveUnusedNodesPass()(model)
        run_passes(model, (transpose_before_quantizing,))  # ONNX Runtime refuses its own rewrite of the other order
        if not images.uses() and images not in graph.outputs:
            graph.inputs[:] = [value for value in graph.inputs if value is not images]
        self._count += 1
        path = self._folder / f"{self._count}.onnx"
        write_model(model, path)
        session = open_session(path, threads=self._threads)
        for file in self._folder.iterdir():
            file.unlink()
        names = [one.name for one in session.get_inputs()]

        def run(batch: Array, pictures: Array) -> list[Array]:
            feeds = {name: batch if name == f"{source}.fed" or source == name else pictures for name in names}
            return list(session.run(list(outputs), feeds))

        return run


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    return {str(value.name): value for node in graph for value in node.outputs}


def over(run: Callable[[Array, Array], list[Array]], batches: Batches, pictures: Batches) -> Iterator[list[Array]]:
    """The outputs of every batch."""
    for batch, images in zip(batches, pictures, strict=True):
        yield run(batch, images)


def windows(images: Array, kernel: tuple[int, int]) -> Array:
    """What the windows of a convolution see, as rows in the order channel, height, width."""
    n, channels, height, width = images.shape
    rows, columns = height // kernel[0], width // kernel[1]
    split = images.reshape(n, channels, rows, kernel[0], columns, kernel[1])
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3, 5)).reshape(n * rows * columns, -1)
