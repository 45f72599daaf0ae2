"""What a tensor looks like over some batches, as scale search needs it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Observer:
    """What a tensor looks like over some batches: a sample of its values, its bounds and second moments.

    values: how many values of the tensor are kept, evenly spaced over the batches. moments: whether to keep them.
    together: how many batches of one size reach `add` as one, in order; what is kept of them is the same.
    """

    def __init__(self, values: int = 16384, batches: int = 1, *, moments: bool = True) -> None:
        self._share = max(1, values // batches)
        self._keeps_moments = moments
        self._parts: list[Tensor] = []
        self._moments: list[Tensor] = []
        self.together = 1

    def add(self, x: Tensor) -> None:
        flat = x.reshape(self.together, -1)
        # A stride that shares no factor with the channels meets every one of them.
        stride = max(1, flat.shape[1] // self._share)
        while math.gcd(stride, x.shape[-1]) > 1:
            stride += 1
        kept = flat[:, ::stride].clone(memory_format=torch.contiguous_format)
        self._parts += [kept.view(-1), flat.amin(1), flat.amax(1)]
        if self._keeps_moments:
            self._moments.append(flat.view(self.together, -1, x.shape[-1]).square().mean(1))

    def sample(self) -> Tensor:
        """The kept values and the extremes, as a vector."""
        return torch.cat(self._parts)

    def second_moments(self) -> Tensor:
        """E[x²] along the last axis."""
        return torch.cat(self._moments).mean(0)
