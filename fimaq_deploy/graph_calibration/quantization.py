"""From a clean graph and images to a quantized one: plan, search, rounding, Q/DQ."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.network.rules import AttentionGrids, Decision, Kept, LayerGrids, Rules
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, FloatActivationGrid, WeightGrid
from fimaq_deploy.calibration.walk import Progress
from fimaq_deploy.contract import Contract
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.passes import run_passes
from fimaq_deploy.export.passes.idle_clips import drop_idle_clips
from fimaq_deploy.export.passes.idle_pads import drop_idle_pads
from fimaq_deploy.export.passes.int4 import pack_int4
from fimaq_deploy.export.qdq import Traced
from fimaq_deploy.graph_calibration.intake import Network
from fimaq_deploy.graph_calibration.parts import Heads, Layer, Parts, find_parts
from fimaq_deploy.graph_calibration.placement import Integers, Site
from fimaq_deploy.graph_calibration.segments import Array, cut
from fimaq_deploy.graph_calibration.walk import Found, Walk
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target, combine, find_target, since

_log = logging.getLogger(__name__)

BATCH = 32
_BUDGET_BYTES = 2**31  # of what pieces hand on: the images that are learned from follow

MORE_FROM_A_MODULE = (
    "an ONNX file is quantized layer by layer, on each layer's own output error: with the PyTorch model whole blocks "
    "would be learned on a Fisher loss and then tuned together, after exact rewrites (norms, heads, rotation), which "
    "matters below 8 bits"
)


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """What came of a file. model: float32, with Q/DQ; original: the same graph without.

    images: how many it learned from. segments: names of the values between its pieces.
    """

    model: ir.Model
    original: ir.Model
    plan: Plan
    recipe: Recipe
    target: Target
    parts: Parts
    history: tuple[BlockRecord, ...]
    images: int
    notes: tuple[str, ...]
    found: Found

    @property
    def weights(self) -> Iterator[tuple[Layer, Integers, WeightGrid]]:
        """Every quantized layer with its integers and their grid, in the order of the graph."""
        for layer, grid in _layers(self.parts, self.plan):
            yield layer, self.found.layers[layer.name][1], grid

    def traced(self, contract: Contract | None) -> Traced:
        """The graph from which the file of any target is written."""
        return Traced(self.model, len(self.found.layers), contract)

    def traced_original(self, contract: Contract | None) -> Traced:
        return Traced(self.original, 0, contract)


def quantize_network(
    network: Network,
    images: ImageSource,
    recipe: Recipe,
    targets: str | Sequence[str],
    *,
    sm: int | None = None,
    progress: Progress = lambda done, total, what: None,
    accept: Callable[[Plan], None] = lambda plan: None,
) -> QuantizedGraph:
    """Quantize a graph for some targets. The one passed in is not modified.

    sm: the oldest GPU generation that has to execute the result, where it is known. accept: is shown the plan before
        anything is searched, and may refuse it.

    Raises:
        UserError: nothing in it can be quantized, the targets cannot execute the recipe's grids, the images are not
            usable, or `layers` of the recipe names what the graph does not have.
    """
    rules = since(combine(map(find_target, [targets] if isinstance(targets, str) else targets)), sm)
    recipe = recipe.resolved(on_host=True)
    model = network.model.clone()
    run_passes(model, (drop_idle_pads,))
    parts = find_parts(model.graph)
    plan = make_plan(parts, recipe, rules)
    accept(plan)
    layers = list(_layers(parts, plan))
    if not layers:
        reason = next(iter(plan.kept.values()), "it holds no product with stored weights")
        raise UserError(f"{network.path}: nothing of it is quantized ({reason})")
    sites = list(_sites(parts, plan))
    segments = cut(model.graph, [layer.node for layer, _ in layers])
    pictures, notes = _pictures(network, images, recipe.reconstruction.images)
    found = Walk(model, segments, layers, sites, pictures, recipe, progress).run()
    quantized = model.clone()
    found.into(quantized.graph)
    run_passes(quantized, (pack_int4, drop_idle_clips))
    return QuantizedGraph(
        model=quantized,
        original=model,
        plan=plan,
        recipe=recipe,
        target=rules,
        parts=parts,
        history=tuple(found.history),
        images=sum(map(len, pictures)),
        notes=(*network.notes, *notes, *_told(recipe, parts, plan)),
        found=found,
    )


def _layers(parts: Parts, plan: Plan) -> Iterator[tuple[Layer, WeightGrid]]:
    for layer in parts.layers:
        grids = plan[layer.name]
        if isinstance(grids, LayerGrids) and isinstance(grids.weights, WeightGrid):
            yield layer, grids.weights


def make_plan(parts: Parts, recipe: Recipe, target: Target) -> Plan:
    """The decision for every layer and attention of a graph, with the rules that modules have.

    Raises:
        UserError: the target cannot execute the recipe's grids, or `layers` names what the graph does not have.
    """
    names = [layer.name for layer in parts.layers], [heads.name for heads in parts.heads]
    rules = Rules(recipe, target, *names)
    found: dict[str, Decision] = {layer.name: rules.layer(layer.facts) for layer in parts.layers}
    found |= {heads.name: _attention(rules, heads) for heads in parts.heads}
    found |= {name: Kept(reason) for name, reason in parts.others.items()}
    if any(isinstance(one, LayerGrids) and not isinstance(one.weights, WeightGrid) for one in found.values()):
        raise UserError("an ONNX file is quantized to integers: for 8-bit floats give the PyTorch model")
    return Plan(found)


def _attention(rules: Rules, heads: Heads) -> Decision:
    if not heads.facts.size or not heads.facts.tokens:
        return Kept("the graph does not say its size")
    made = rules.attention(heads.facts)
    if isinstance(made, AttentionGrids) and isinstance(made.operands, FloatActivationGrid):
        return Kept("attention in 8-bit floats needs the PyTorch model")
    return made


def _sites(parts: Parts, plan: Plan) -> Iterator[Site]:
    """What is quantized of activations. A tensor that several layers read on one grid is quantized once."""
    shared: dict[tuple[str, ActivationGrid], list[Layer]] = {}
    for layer in parts.layers:
        grids = plan[layer.name]
        if isinstance(grids, LayerGrids) and isinstance(grids.inputs, ActivationGrid):
            shared.setdefault((layer.value, grids.inputs), []).append(layer)
    for (value, grid), readers in shared.items():
        places = tuple((layer.node, 0) for layer in readers)
        yield Site(f"{readers[0].name}.input_quantizer", value, places, grid, weighted=True)
    for heads in parts.heads:
        found = plan[heads.name]
        if isinstance(found, AttentionGrids):
            yield from _of_attention(heads, found)


def _of_attention(heads: Heads, grids: AttentionGrids) -> Iterator[Site]:
    for name, (value, reader) in heads.reads.items():
        softmax = name == "softmax"
        grid = grids.softmax if softmax else grids.operands
        assert isinstance(grid, ActivationGrid), heads.name
        yield Site(f"{heads.name}.quantizers.{name}", value, (reader,), grid, nonnegative=softmax)


def _pictures(network: Network, images: ImageSource, limit: int) -> tuple[list[Array], list[str]]:
    """Calibration images in batches, as many as what pieces hand on leaves memory for."""
    size = images_at_once(images.take(1).shape, BATCH)
    width = _handed_on(network)
    most = max(size, min(limit, _BUDGET_BYTES // (8 * width)))
    taken, count = list[Array](), 0
    for batch in images.batches(size):
        kept = batch.images[: most - count].numpy()
        if len(kept):
            taken.append(np.ascontiguousarray(kept, np.float32))
        count += len(kept)
        if count >= most:
            break
    short = most < limit and count == most
    return taken, [f"learned from {count} images, for which there is memory"] if short else []


def _handed_on(network: Network) -> int:
    """Numbers of the largest activation that one piece hands to the next, of one image."""
    sizes = [network.shape[0] * network.shape[1] * network.shape[2]]
    for node in network.graph:
        if node.op_type in ("Add", "LayerNormalization") and node.outputs[0].shape is not None:
            known = [size for size in node.outputs[0].shape if isinstance(size, int)]
            sizes.append(int(np.prod(known)) if known else 0)
    return max(sizes)


def _told(recipe: Recipe, parts: Parts, plan: Plan) -> Iterator[str]:
    yield MORE_FROM_A_MODULE
    yield from plan.notes()
