"""The squared errors of a tensor on many grids, from its sorted values: what rules out most candidates of a search.

Which value of a grid stands for a number depends on which of the grid's thresholds the number lies between. A sorted
tensor needs for each threshold no more than how many numbers lie below it and what they add up to, instead of one
rounding a number and candidate.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Sums in float64 and the float32 of a search differ by far less: no candidate of least error is left out.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-9
# Numbers for each threshold of a grid from which on this is the shorter way.
WORTH_SORTING = 256

# Rows whose squares sum up to less have no candidate whose error overflows float32.
_LARGE = 1e30


class Sorted:
    """Rows of numbers on the host, (rows, numbers), sorted, with their sums.

    moderate: (rows, 1), of which rows no squared error can overflow float32.
    """

    def __init__(self, x: Tensor) -> None:
        # NumPy sorts in vectors, torch number by number.
        self._values = torch.from_numpy(np.sort(x.numpy(), axis=1))
        below = self._values.double().cumsum(1)
        self._below = torch.nn.functional.pad(below, (1, 0))
        self._total = below[:, -1:]
        self._power = self._values.double().square().sum(1, keepdim=True)
        self.moderate = self._power < _LARGE

    def errors(self, scale: Tensor, offset: Tensor, top: int) -> Tensor:
        """Σ (x - x̂)² for x̂ = scale * clamp(round(x / scale), low, low + top) with low = -offset, in float64.

        scale, offset: (rows, candidates), whole offsets. Exact but for rounding; not finite where a number is not.
        """
        number = torch.arange(top)
        thresholds = (number + 0.5 - offset[..., None]) * scale[..., None]
        count = torch.searchsorted(self._values, thresholds.flatten(1))
        below = self._below.gather(1, count).view_as(thresholds).sum(-1)
        counts = count.view_as(thresholds).double()
        scale, low = scale.double(), -offset.double()
        last = low + top
        # Sums over the grid's values as sums over its thresholds: each one lowers what lies below it by one step.
        products = last * self._total - below
        steps = (2 * low + 1) * counts.sum(-1) + 2 * (counts @ number.double())
        squares = last.square() * self._values.shape[1] - steps
        return self._power - 2 * scale * products + scale.square() * squares

    def near_best(self, scale: Tensor, offset: Tensor, top: int) -> Tensor:
        """Which candidates can have the least error of their row, (rows, candidates): all where that is not known."""
        errors = self.errors(scale, offset, top)
        limit = errors.amin(1, keepdim=True) * (1 + _RELATIVE) + self._power * _ABSOLUTE
        return ~(errors > limit)
