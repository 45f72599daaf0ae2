"""What reconstruction and tuning share: running a set in batches, its relative error, minibatches, optimiser groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import of, place_of
from fimaq_deploy.calibration.quantizers.layers import weights_held


@torch.no_grad()
def run_batches(module: nn.Module, inputs: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The module's outputs for a whole set, batch by batch, on the module's device."""
    device = place_of(module)
    with weights_held(module):
        for batch in inputs.split(batch_size):
            yield module(batch if batch.device == device else of(device).send(batch))


def relative_error(outputs: Iterator[Tensor], z: Tensor) -> Tensor:
    """Σ|ẑ - z|² / Σ|z|² over the images that there are outputs for, as a number that lies where they do."""
    start = 0
    sums: Tensor | None = None
    for output in outputs:
        reference = z[start : start + len(output)].to(output.device)
        both = torch.stack(((output - reference).square().sum(), reference.square().sum()))
        sums = both if sums is None else both + sums
        start += len(output)
    assert sums is not None
    return sums[0] / sums[1].clamp(min=1e-20)


def minibatches(count: int, batch_size: int) -> Iterator[Tensor]:
    """Endless shuffled epochs of equal batches, as indices."""
    size = min(batch_size, count)
    while True:
        shuffled = torch.randperm(count)
        yield from (shuffled[start : start + size] for start in range(0, count - size + 1, size))


def merged(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser groups with one group for each learning rate, none of them empty."""
    found: dict[float, list[nn.Parameter]] = {}
    for group in groups:
        found.setdefault(group["lr"], []).extend(group["params"])
    return [{"params": params, "lr": lr} for lr, params in found.items() if params]
