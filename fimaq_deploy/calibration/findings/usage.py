"""How quantized tensors fill their grids: which integers occur, and how many values lie beyond the last one.

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
from fimaq_deploy.calibration.quantizers.grid import IntegerRange
from fimaq_deploy.calibration.quantizers.layers import QuantizedLayer, activation_quantizers


@dataclass(frozen=True)
class GridUse:
    """One tensor. used_levels: integers that occur, of `levels`; clipped: percent of the values beyond the grid."""

    name: str
    kind: Literal["weight", "activation"]
    bits: int
    used_levels: int
    levels: int
    clipped: float


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

    @property
    def counts(self) -> Tensor:
        """How many values lie beyond the grid, and how many integers occur, where they were counted."""
        return torch.stack((self.beyond, self.seen.sum()))

    def use(self, name: str, kind: Literal["weight", "activation"], bits: int, counts: Sequence[int]) -> GridUse:
        """What was counted, with `counts` as numbers."""
        beyond, used = counts
        return GridUse(name, kind, bits, used, len(self.seen), 100 * beyond / max(self.values, 1))


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


def _weight_tally(layer: QuantizedLayer) -> Tally:
    grid = layer.weight_quantizer.grid
    tally = Tally(grid.range, layer.q_weight.device)
    tally.add(layer.steps())
    # What a weight is closest to is not what learning chose for it: the integers are those that are stored.
    tally.seen = torch.zeros_like(tally.seen)
    tally.seen[(layer.q_weight.long() - grid.range.low).flatten()] = True
    return tally


@contextmanager
def _tallied(model: nn.Module) -> Iterator[dict[str, Tally]]:
    """A tally of what reaches each activation quantizer while the block lasts, by the quantizer's name."""
    tallies: dict[str, Tally] = {}
    handles = []
    for name, quantizer in activation_quantizers(model):
        tallies[name] = Tally(quantizer.span, quantizer.scale.device)
        handles.append(quantizer.register_forward_pre_hook(_counting(tallies[name])))
    try:
        yield tallies
    finally:
        for handle in handles:
            handle.remove()


def _counting(tally: Tally) -> Any:
    def count(quantizer: ActivationQuantizer, inputs: tuple[Tensor, ...]) -> None:
        tally.add(inputs[0] / quantizer.scale + tally.span.zero_point)

    return count


def _tensor_name(quantizer: str) -> str:
    """The layer for its input, and attention's own operands as `attn.q`, `attn.k`, `attn.v` and `attn.softmax`."""
    return quantizer.removesuffix(".input_quantizer").replace(".quantizers.", ".")
