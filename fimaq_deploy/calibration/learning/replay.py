"""The inner loop on a GPU as one captured CUDA graph: a few hundred small kernels for the price of one launch.

Everything that changes between iterations is written into tensors that the graph reads (the indices of the minibatch,
learning rates, AdaRound's exponent); random numbers come from the device's generator, which advances with every replay.
The first iterations run as usual, so that libraries have set up what they need; they are real ones. Where recording
fails, learning goes on without it and says so once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of

Step = Callable[[Tensor], tuple[Tensor, Tensor]]

_WARM_UP = 3


class Replay:
    """Calls a function of minibatch indices, on a GPU by replaying a graph of it from the fourth call on.

    function: must not fetch anything from the device, and must return tensors of the same shapes every time. What it
        returns is overwritten by the next call.
    """

    def __init__(self, function: Step, device: torch.device, *, capture: bool = True) -> None:
        self._place = of(device)
        self.function, self.capture = function, capture and of(device).records
        self.forget()

    def forget(self) -> None:
        """Capture anew, because tensors that the function reads are others now."""
        self._graph: Any = None
        self._calls = 0

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        if not self.capture:
            return self.function(index)
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._place.warm_up(lambda: self.function(index))
        if self._graph is None and not self._captured(index):
            return self.function(index)
        self._index.copy_(index, non_blocking=True)
        self._graph()
        return self._result

    def _captured(self, index: Tensor) -> bool:
        self._index = index.clone()
        try:
            self._graph, self._result = self._place.record(lambda: self.function(self._index))
        except RuntimeError as error:
            self.capture = False
            warnings.warn(f"the inner loop runs without a CUDA graph: {error}", RuntimeWarning, stacklevel=4)
            return False
        return True
