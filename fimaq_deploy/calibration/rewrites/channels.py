"""Ranges and means of every channel, and the factors that make them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LARGEST_FACTOR = 16.0


_BATCH = 32


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    return model(images.to(next(model.parameters()).device))


@dataclass
class ChannelStats:
    """Minimum, maximum and mean of every channel (last axis) over all that was seen."""

    low: Tensor
    high: Tensor
    total: Tensor
    count: int

    @classmethod
    def of(cls, x: Tensor) -> ChannelStats:
        x = x.flatten(0, -2)
        return cls(x.amin(0).double(), x.amax(0).double(), x.sum(0, dtype=torch.float64), len(x))

    def merged(self, other: ChannelStats) -> ChannelStats:
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        return ChannelStats(low, high, self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    def reach(self, centre: Tensor | None = None) -> Tensor:
        """The largest distance from the centre (from zero if None)."""
        centre = torch.zeros_like(self.low) if centre is None else centre
        return torch.maximum(self.high - centre, centre - self.low)

    def part(self, rows: slice) -> ChannelStats:
        return ChannelStats(self.low[rows], self.high[rows], self.total[rows], self.count)


def measure_channels(model: nn.Module, images: Tensor, modules: dict[str, nn.Module]) -> dict[str, ChannelStats]:
    """Statistics of the outputs of some of the model's modules, by the names given, on images (N, C, H, W)."""
    seen: dict[str, ChannelStats] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            stats = ChannelStats.of(output)
            seen[name] = seen[name].merged(stats) if name in seen else stats

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        for batch in images.split(_BATCH):
            logits_of(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def equalising_factors(reach: Tensor, strength: float) -> Tensor:
    """f = (reach / geometric mean)^strength, within [1/16, 16]."""
    logs = reach.clamp(min=1e-12).log()
    return ((logs - logs.mean()) * strength).exp().clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
