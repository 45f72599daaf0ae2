"""When a block has learned enough: a schedule that runs to its ceiling unless the loss stops improving first.

Learning rates follow the schedule's progress from 0 to 1. While nothing is decided, progress is iteration / ceiling.
The loss is averaged over windows of iterations; once `patience` windows in a row have not brought an improvement, the
rest of the schedule is run through in a quarter of the iterations used so far, so that a block that stops early has
seen every learning rate too. A new Fisher measurement changes the scale of the loss: the first window after it is taken
to stand where the last one before it stood.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

WINDOW = 16  # iterations; the loss is fetched once a window, which on a GPU is the only time the host waits
TOLERANCE = 0.01
_TAIL = 0.25

CEILING, CONVERGED, NOTHING = "ceiling", "converged", "nothing to learn"


class Schedule:
    """Iterate over it to get iteration numbers; `progress` belongs to the current one.

    patience: windows without an improvement of `TOLERANCE` before a block winds down; 0 runs to the ceiling.
    """

    def __init__(self, ceiling: int, patience: int, device: torch.device | str = "cpu") -> None:
        self.ceiling, self.patience = ceiling, patience
        self.iteration = 0
        self.winding_from: int | None = None
        self.end = ceiling
        self._best = self._last = float("inf")
        self._worse, self._rescale = 0, False
        self._sum, self._count = torch.zeros((), device=device), 0

    def __iter__(self) -> Iterator[int]:
        while self.iteration < self.end:
            yield self.iteration
            self.iteration += 1

    @property
    def progress(self) -> float:
        """From 0 at the first iteration towards 1 at the end."""
        return self.progress_at(self.iteration)

    def progress_at(self, iteration: int) -> float:
        """What `progress` will be, as things stand."""
        if self.winding_from is None:
            return iteration / self.ceiling
        start = self.winding_from / self.ceiling
        return start + (1 - start) * (iteration - self.winding_from) / (self.end - self.winding_from)

    @property
    def outcome(self) -> str:
        return CEILING if self.winding_from is None else CONVERGED

    def take_in(self, loss: Tensor) -> None:
        """The loss of the current iteration, as part of its step: nothing here asks for its number."""
        if self.patience:
            self._sum.add_(loss.detach())

    def observe(self) -> bool:
        """The step of the current iteration is done. Returns whether that ends the schedule early: rates change."""
        if not self.patience or self.winding_from is not None:
            return False
        self._count += 1
        if self._count == WINDOW:
            self._judge(float(self._sum) / WINDOW)
            self._begin_window()
        return self.winding_from is not None

    def restart(self) -> None:
        """The loss has a new scale from here on."""
        self._rescale = 0 < self._last < float("inf")
        self._begin_window()

    def _begin_window(self) -> None:
        self._sum.zero_()
        self._count = 0

    def _judge(self, mean: float) -> None:
        if self._rescale:
            self._best, self._last, self._rescale = self._best * mean / self._last, mean, False
            return
        improved = mean < self._best * (1 - TOLERANCE)
        self._worse = 0 if improved else self._worse + 1
        self._best, self._last = min(self._best, mean), mean
        if self._worse >= self.patience:
            self._wind_down()

    def _wind_down(self) -> None:
        used = self.iteration + 1
        end = used + max(1, round(_TAIL * used))
        if end < self.ceiling:
            self.winding_from, self.end = used, end
