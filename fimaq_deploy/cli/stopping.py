"""Ctrl-C, a request to end (SIGTERM) and a closed terminal (SIGHUP): all three end a command in the same way.

Python raises KeyboardInterrupt for the first of them alone. Libraries may drop it, or turn it into an error of theirs,
so that it was asked for is remembered: whatever a command then fails with is no fault, and it goes on with nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class StopRequest:
    """number: of the first signal that asked to end, None as long as none did."""

    number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        return 128 + (self.number or signal.SIGINT)


_current = StopRequest()


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen in the main thread. A signal that is ignored, as in the background of a shell, stays so."""
    global _current
    before, _current = _current, StopRequest()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, _current) for number in heard}
    try:
        yield _current
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _current = before


def stop_if_asked() -> None:
    """Ask again, where a library dropped the first request.

    Raises:
        KeyboardInterrupt: a signal has asked to end.
    """
    if _current.number is not None:
        raise KeyboardInterrupt
