"""Piece after piece of a graph is put in integers, each on what the pieces before it computed.

1. the piece runs in full precision on what the quantized pieces before it hand on: scales of its tensors are searched;
2. its layers are rounded in the order of execution (`rounding`), each on what it reads where everything before it is in
   integers, beside what it reads in the original;
3. both, the piece in integers and the original one, compute what the next piece starts from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.learning.scale_search import search_activations
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, alike, freeze_activations
from fimaq_deploy.calibration.quantizers.grid import WeightGrid
from fimaq_deploy.calibration.quantizers.observer import Observer
from fimaq_deploy.calibration.walk import Progress
from fimaq_deploy.graph_calibration.parts import Layer
from fimaq_deploy.graph_calibration.placement import Integers, Scale, Site, quantize_graph
from fimaq_deploy.graph_calibration.rounding import SWEEPS, Moments, fit, nearest
from fimaq_deploy.graph_calibration.segments import Array, Running, Segment, over, windows
from fimaq_deploy.recipe import Recipe

_ROWS = 16  # for each input of a layer, as many rows of moments as are looked at, and at least _LEAST_ROWS
_LEAST_ROWS = 8192


@dataclass
class Found:
    """What the walk decides, by the site and by the layer."""

    sites: dict[Site, Scale] = field(default_factory=dict)
    layers: dict[str, tuple[Layer, Integers]] = field(default_factory=dict)
    history: list[BlockRecord] = field(default_factory=list)

    def into(self, graph: ir.Graph) -> None:
        quantize_graph(graph, self.sites, list(self.layers.values()))


@dataclass(frozen=True, eq=False)
class Walk:
    """Everything that it depends on. layers: those that are quantized, with their grids. pictures: images."""

    model: ir.Model
    segments: Sequence[Segment]
    layers: Sequence[tuple[Layer, WeightGrid]]
    sites: Sequence[Site]
    pictures: Sequence[Array]
    recipe: Recipe
    progress: Progress

    @torch.no_grad()
    def run(self) -> Found:
        found, original, own = Found(), list(self.pictures), list(self.pictures)
        with Running(self.model) as running:
            for number, segment in enumerate(self.segments):
                layers = [pair for pair in self.layers if pair[0].node in segment.nodes]
                sites = [site for site in self.sites if any(node in segment.nodes for node, _ in site.readers)]
                self.progress(number, len(self.segments), layers[0][0].name if layers else "the last part")
                piece = _Piece(self, running, segment, layers, sites, original, own, found)
                piece.search()
                piece.round()
                if segment.result is not None:
                    original, own = piece.results()
        return found


@dataclass(frozen=True, eq=False)
class _Piece:
    walk: Walk
    running: Running
    segment: Segment
    layers: Sequence[tuple[Layer, WeightGrid]]
    sites: Sequence[Site]
    original: list[Array]
    own: list[Array]
    found: Found

    @property
    def learns(self) -> bool:
        return self.walk.recipe.reconstruction.iterations_a_block > 0

    def search(self) -> None:
        """Scales of every tensor; of weights too, where nothing is learned."""
        names = list(dict.fromkeys([site.value for site in self.sites] + [one.value for one, _ in self.layers]))
        if not names:
            return
        used = self.walk.recipe.scale_search.images
        count = _batches(self.own, used)
        observers = {name: Observer(batches=count, moments=True) for name in names}
        kernels = {one.value: one.kernel for one, _ in self.layers if one.kernel}
        for arrays in self._over(None, self.own[:count], names):
            for name, array in zip(names, arrays, strict=True):
                rows = windows(array, kernels[name]) if name in kernels else array
                observers[name].add(torch.from_numpy(rows))
        quantizers = {site: ActivationQuantizer(site.grid, site.nonnegative) for site in self.sites}
        back = {quantizer: site for site, quantizer in quantizers.items()}
        for group in alike(quantizers.values()):
            samples = [observers[back[one].value].sample() for one in group]
            search_activations(group, samples, self.walk.recipe.scale_search.candidates)
        freeze_activations(list(quantizers.values()))
        self.found.sites.update({site: Scale(float(one.scale), one.span) for site, one in quantizers.items()})
        if self.learns:
            return
        for layer, grid in self.layers:
            importance = observers[layer.value].second_moments()
            integers, scale = nearest(
                torch.tensor(layer.weight), grid, importance, self.walk.recipe.scale_search.candidates
            )
            self.found.layers[layer.name] = (layer, _stored(layer, grid, integers, scale, None))

    def round(self) -> None:
        """Learn the integers of every layer, those first that others of the piece read the results of."""
        if not self.learns:
            return
        for level in self._levels():
            began = time.perf_counter()
            names = list(dict.fromkeys(layer.value for layer, _ in level))
            moments = self._moments(level, names)
            for layer, grid in level:
                weight, bias = torch.tensor(layer.weight), self._bias(layer)
                made = fit(weight, bias, moments[layer.value], grid, self.walk.recipe.scale_search.candidates)
                self.found.layers[layer.name] = (
                    layer,
                    _stored(layer, grid, made.integers, made.scale, made.bias),
                )
                seconds, began = time.perf_counter() - began, time.perf_counter()
                self.found.history.append(BlockRecord(layer.name, made.before, made.after, SWEEPS, seconds))

    def results(self) -> tuple[list[Array], list[Array]]:
        assert self.segment.result is not None
        names = [self.segment.result]
        whole = [array for (array,) in self._over(None, self.original, names)]
        return whole, [array for (array,) in self._over(self.found.into, self.own, names)]

    def _over(
        self, edit: Callable[[ir.Graph], None] | None, batches: Sequence[Array], names: Sequence[str]
    ) -> Iterator[list[Array]]:
        run = self.running.piece(self.segment.source, names, edit)
        return over(run, batches, self.walk.pictures[: len(batches)])

    def _levels(self) -> Iterator[list[tuple[Layer, WeightGrid]]]:
        """Layers by how many others of the piece stand between its source and them."""
        by_node = {layer.node: (layer, grid) for layer, grid in self.layers}
        depth: dict[ir.Value, int] = {}
        levels: dict[int, list[tuple[Layer, WeightGrid]]] = {}
        for node in self.walk.model.graph:
            if node.name not in self.segment.nodes:
                continue
            at = max((depth.get(value, 0) for value in node.inputs if value is not None), default=0)
            if node.name in by_node:
                levels.setdefault(at, []).append(by_node[str(node.name)])
                at += 1
            depth.update(dict.fromkeys(node.outputs, at))
        return (levels[at] for at in sorted(levels))

    def _moments(self, level: Sequence[tuple[Layer, WeightGrid]], names: Sequence[str]) -> dict[str, Moments]:
        sites = {site.value: site for site in self.sites if site.weighted}
        kernels = {layer.value: layer.kernel for layer, _ in level}
        widths = {layer.value: layer.weight.shape[1] for layer, _ in level}
        found = {name: Moments(width) for name, width in widths.items()}
        inside = {site: scale for site, scale in self.found.sites.items() if site.value not in names}

        def edit(graph: ir.Graph) -> None:
            quantize_graph(graph, inside, list(self.found.layers.values()))

        pairs = zip(self._over(None, self.original, names), self._over(edit, self.own, names), strict=True)
        for originals, owns in pairs:
            for name, original, own in zip(names, originals, owns, strict=True):
                width = widths[name]
                most = max(1, max(_ROWS * width, _LEAST_ROWS) // len(self.own))
                rows = [_rows(array, kernels[name], width, most) for array in (own, original)]
                scale = self.found.sites.get(sites[name]) if name in sites else None
                found[name].add(rows[0] if scale is None else quantized(rows[0], scale), rows[1])
        return found

    def _bias(self, layer: Layer) -> Tensor | None:
        node = next((node for node in self.walk.model.graph if node.name == (layer.bias or layer.node)), None)
        return None if node is None else bias_vector(layer, node)


def bias_vector(layer: Layer, node: ir.Node) -> Tensor | None:
    """The stored bias of a layer, from the node that adds it."""
    from fimaq_deploy.graph.edit import numpy_of, optional_at

    if layer.bias is not None:
        arrays = (numpy_of(value) for value in node.inputs)
        found = next((array for array in arrays if array is not None and array.ndim == 1), None)
    else:
        found = numpy_of(optional_at(node, 2)) if layer.kernel else None
    return None if found is None or found.size != len(layer.weight) else torch.from_numpy(found.copy())


def quantized(x: Tensor, scale: Scale) -> Tensor:
    """What a quantizer makes of numbers."""
    span = scale.span
    steps = (x / scale.scale).round_().clamp_(span.low - span.zero_point, span.high - span.zero_point)
    return steps.mul_(scale.scale)


def _rows(array: Array, kernel: tuple[int, int] | None, width: int, most: int) -> Tensor:
    """Rows (n, width), at most so many, evenly spaced."""
    rows = windows(array, kernel) if kernel else array.reshape(-1, width)
    step = -(-len(rows) // most)
    return torch.from_numpy(np.ascontiguousarray(rows[::step], np.float32))


def _batches(batches: Sequence[Array], images: int) -> int:
    """How many batches hold so many images."""
    size = max(1, len(batches[0]))
    return max(1, min(len(batches), -(-images // size)))


def _stored(layer: Layer, grid: WeightGrid, integers: Tensor, scale: Tensor, bias: Tensor | None) -> Integers:
    """In the layout of the file."""
    whole = integers.to(torch.int8).numpy()
    if layer.kernel:
        channels = whole.shape[1] // (layer.kernel[0] * layer.kernel[1])
        weights, scales = whole.reshape(len(whole), channels, *layer.kernel), scale[:, 0].numpy()
    else:
        weights, scales = whole.T, (scale.T if grid.block_size else scale[:, 0]).numpy()
    own = None if bias is None else bias.numpy()
    return Integers(np.ascontiguousarray(weights), np.ascontiguousarray(scales, np.float32), own, grid.block_size)
