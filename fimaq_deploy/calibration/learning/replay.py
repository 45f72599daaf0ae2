"""The inner loop as one recorded step: a few hundred small kernels for the price of one launch.

Everything that changes between iterations is written into tensors that the step reads, or looked up by the step itself
(`steps.Tables`); random numbers come from the device's generator, which advances with every replay. The first
iterations run as usual, so that libraries have set up what they need; they are real ones. Where recording fails,
learning goes on without it and says so once.

On the host a step of few numbers is recorded as the operators that it calls (`recording`), which takes half of the time
of calling them through modules and autograd.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import torch

from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.recording import WORTH_RECORDING, recorded

T = TypeVar("T")

# It sets up optimiser states and libraries.
_WARM_UP = 1


class Replay(Generic[T]):
    """Calls a function without arguments; on a device that records steps, from the second call on by replaying it.

    function: must not fetch anything from the device, and must return tensors of the same shapes every time. What it
        returns is overwritten by the next call.
    warm_up: calls that run as usual before one is recorded; none where the like of it has run before.
    values: how many numbers go into it, which decides on the host.
    """

    def __init__(
        self,
        function: Callable[[], T],
        device: torch.device,
        *,
        record: bool = True,
        warm_up: int = _WARM_UP,
        values: int = sys.maxsize,
    ) -> None:
        self._place, self._on_host = of(device), is_host(device)
        self._warm_up = 0 if self._on_host else warm_up  # where there is nothing to set up
        able = values <= WORTH_RECORDING if self._on_host else self._place.records
        self.function, self.records = function, record and able
        self.forget()

    def forget(self) -> None:
        """Record anew, because the function computes something else from now on."""
        self._again: Any = None
        self._calls = 0

    def __call__(self) -> T:
        if not self.records:
            return self.function()
        self._calls += 1
        if self._calls <= self._warm_up:
            return self._place.warm_up(self.function)
        if self._on_host:
            return self._called_again()
        if self._again is None and not self._recorded():
            return self.function()
        self._again()
        return self._result

    def _called_again(self) -> T:
        found: object
        if self._again is not None:
            found = self._again()
        elif torch.is_autocast_enabled("cpu"):  # it keeps what it has cast
            found = self.function()
        else:
            found, self._again = recorded(self.function)  # type: ignore[arg-type]
            self.records = self._again is not None
        return cast(T, found)

    def _recorded(self) -> bool:
        try:
            self._again, self._result = self._place.record(self.function)
        except RuntimeError as error:
            self.records = False
            warnings.warn(f"the inner loop runs without a recorded step: {error}", RuntimeWarning, stacklevel=4)
            return False
        return True
