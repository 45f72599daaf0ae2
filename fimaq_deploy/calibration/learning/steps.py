"""What changes from one iteration to the next: the images of the minibatch and the learning rates.

On the host both are set before each iteration. A recorded step looks them up itself, in tables that lie on the device,
at a counter that it moves on, so that nothing is left for the host but to start it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning.minibatches import Rows, read_ahead
from fimaq_deploy.calibration.recording import node

# The rates at a schedule's progress, from 0 to 1.
Rates = Callable[[float], Sequence[float]]


class Steps:
    """Sets what an iteration needs before it begins.

    order: the minibatches, as indices; rows: what they are read from; assign: takes the rates.
    """

    def __init__(
        self,
        order: Iterator[Tensor],
        rows: Callable[[], Sequence[Rows]],
        rates: Rates,
        assign: Callable[[Sequence[float]], None],
    ) -> None:
        self._order, self._rates, self._assign = read_ahead(order, rows), rates, assign

    def prepare(self, iteration: int, progress: Callable[[int], float]) -> None:
        """By the host, before an iteration. progress: where the schedule is at an iteration."""
        self._assign(self._rates(progress(iteration)))
        self._index = next(self._order)

    def begin(self) -> Tensor:
        """As the first part of a step: the indices of its minibatch."""
        return _index_of(self)

    def reschedule(self, progress: Callable[[int], float]) -> None:
        """The schedule has changed from here on."""


@node
def _index_of(steps: Steps) -> Tensor:
    return steps._index


class Tables:
    """Lets a recorded step look up what it needs.

    order: as many minibatches as there can be iterations, on the host; values: what the step reads its rates from.
    """

    def __init__(
        self,
        order: Iterator[Tensor],
        iterations: int,
        rows: Callable[[], Sequence[Rows]],
        rates: Rates,
        values: Tensor,
    ) -> None:
        self._place, self._rows, self._rates, self._values = of(values.device), rows, rates, values
        self._here = torch.stack(list(islice(order, iterations)))
        self._there = self._place.send(self._here)
        self._now = torch.zeros(1, dtype=torch.int64, device=values.device)
        self._table = torch.empty(iterations, len(values), device=values.device)

    def prepare(self, iteration: int, progress: Callable[[int], float]) -> None:
        if iteration == 0:
            self.reschedule(progress)
        ahead = [one for one in self._rows() if one.ahead]
        for one in ahead:
            one.arrive(self._here[iteration])
            one.prefetch(self._here[min(iteration + 1, len(self._here) - 1)])

    def begin(self) -> Tensor:
        self._values.copy_(self._table.index_select(0, self._now)[0])
        index = self._there.index_select(0, self._now)[0]
        self._now.add_(1)
        return index

    def reschedule(self, progress: Callable[[int], float]) -> None:
        table = torch.tensor([tuple(self._rates(progress(i))) for i in range(len(self._here))])
        self._table.copy_(self._place.send(table))
