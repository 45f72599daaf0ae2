"""How quantized tensors fill their grids: which values occur, and how many lie beyond the last one.

A grid that is hardly used wastes bits; one that clips much has a scale too small. Both are counted on the network as it
will run: frozen, everything quantized.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer
from fimaq_deploy.calibration.quantizers.grid import (
    AnyActivationGrid,
    AnyWeightGrid,
    FloatActivationGrid,
    FloatWeightGrid,
    IntegerRange,
    WeightGrid,
)
from fimaq_deploy.calibration.quantizers.layers import QuantizedLayer, activation_quantizers
from fimaq_deploy.calibration.quantizers.nearest import levels, nearest
from fimaq_deploy.target.numbers import FloatFormat


@dataclass(frozen=True)
class GridUse:
    """One tensor. used_levels: integers (or floats of few bits) that occur, of `levels`; clipped: percent of the values
    beyond the grid, on calibration images; evaluated: the same on those of the evaluation, None where nobody looked.
    """

    name: str
    kind: Literal["weight", "activation"]
    bits: int
    used_levels: int
    levels: int
    clipped: float
    evaluated: float | None = None


class Tally:
    """Counts the integers that values fall on, given as steps of the grid before rounding, zero point included."""

    def __init__(self, span: IntegerRange, device: torch.device) -> None:
        self.span, self.values = span, 0
        self.seen = torch.zeros(span.high - span.low + 1, dtype=torch.bool, device=device)
        self.beyond = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, steps: Tensor) -> None:
        integers = steps.round()
        self.values += integers.numel()
        self.beyond += ((integers < self.span.low) | (integers > self.span.high)).sum()
        self.seen[(integers.clamp_(self.span.low, self.span.high) - self.span.low).long().flatten()] = True

    def stored(self, values: Tensor) -> None:
        """These values occur and no others, whatever was nearest to what was added."""
        self.seen = torch.zeros_like(self.seen)
        self.seen[(values.long() - self.span.low).flatten()] = True

    @property
    def counts(self) -> Tensor:
        """How many values lie beyond the grid, and how many integers occur, where they were counted."""
        return torch.stack((self.beyond, self.seen.sum()))

    def use(self, name: str, kind: Literal["weight", "activation"], bits: int, counts: Sequence[int]) -> GridUse:
        """What was counted, with `counts` as numbers."""
        beyond, used = counts
        return GridUse(name, kind, bits, used, len(self.seen), 100 * beyond / max(self.values, 1))


class FloatTally(Tally):
    """The same for a floating-point format; -0 counts as 0."""

    def __init__(self, form: FloatFormat, device: torch.device) -> None:
        super().__init__(IntegerRange(0, 2 * len(form.values) - 2), device)
        self.form = form
        self.levels = levels(form, device)

    def add(self, steps: Tensor) -> None:
        self.values += steps.numel()
        self.beyond += (steps.abs() > self.form.largest).sum()
        self._mark(nearest(steps.float(), self.form))

    def stored(self, values: Tensor) -> None:
        self.seen = torch.zeros_like(self.seen)
        self._mark(values.float())

    def _mark(self, values: Tensor) -> None:
        self.seen[torch.searchsorted(self.levels, values.flatten())] = True


def _tally_of(grid: AnyWeightGrid | AnyActivationGrid, span: IntegerRange, device: torch.device) -> Tally:
    if isinstance(grid, FloatWeightGrid | FloatActivationGrid):
        return FloatTally(grid.values, device)
    return Tally(span, device)


@torch.no_grad()
def grid_use(model: nn.Module, batches: Iterable[Tensor]) -> list[GridUse]:
    """Every quantized tensor of a frozen model that still has its full-precision weights, in the order of the model.

    batches: images (N, C, H, W) on any device, for the activations.
    """
    device = next(model.parameters()).device
    with _tallied(model) as tallies:
        for batch in batches:
            model(batch.to(device))
    found: list[tuple[str, Literal["weight", "activation"], int, Tally]] = []
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer):
            found.append((name, "weight", module.weight_quantizer.grid.bits, _weight_tally(module)))
        if name in tallies:
            assert isinstance(module, ActivationQuantizer) and module.grid is not None
            found.append((_tensor_name(name), "activation", module.grid.bits, tallies[name]))
    # All are fetched together: each time the host waits for the device.
    counts = torch.stack([tally.counts for *_, tally in found]).tolist() if found else []
    return [tally.use(name, kind, bits, one) for (name, kind, bits, tally), one in zip(found, counts, strict=True)]


@torch.no_grad()
def clipped_shares(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
    """Percent of the values beyond the grid, of every activation of a frozen model, by the tensor's name.

    batches: images (N, C, H, W) on any device.
    """
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
    with _tallied(model) as tallies:
        for batch in batches:
            model(batch.to(device))
    return {
        _tensor_name(name): tally.use(name, "activation", 0, tally.counts.tolist()).clipped
        for name, tally in tallies.items()
    }


def _weight_tally(layer: QuantizedLayer) -> Tally:
    grid = layer.weight_quantizer.grid
    span = grid.range if isinstance(grid, WeightGrid) else IntegerRange(0, 0)
    tally = _tally_of(grid, span, layer.q_weight.device)
    tally.add(layer.steps())
    # What a weight is closest to is not what learning chose for it: the values are those that are stored.
    tally.stored(layer.q_weight)
    return tally


@contextmanager
def _tallied(model: nn.Module) -> Iterator[dict[str, Tally]]:
    """A tally of what reaches each activation quantizer while the block lasts, by the quantizer's name."""
    tallies: dict[str, Tally] = {}
    handles = []
    for name, quantizer in activation_quantizers(model):
        assert quantizer.grid is not None
        tallies[name] = _tally_of(quantizer.grid, quantizer.span, quantizer.scale.device)
        handles.append(quantizer.register_forward_pre_hook(_counting(tallies[name])))
    try:
        yield tallies
    finally:
        for handle in handles:
            handle.remove()


def _counting(tally: Tally) -> Any:
    def count(quantizer: ActivationQuantizer, inputs: tuple[Tensor, ...]) -> None:
        tally.add(quantizer.steps(inputs[0]))

    return count


def _tensor_name(quantizer: str) -> str:
    """The layer for its input, and attention's own operands as `attn.q`, `attn.k`, `attn.v` and `attn.softmax`."""
    return quantizer.removesuffix(".input_quantizer").replace(".quantizers.", ".")
