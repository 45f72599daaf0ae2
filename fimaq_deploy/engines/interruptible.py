"""Long native work that Ctrl-C can end.

Python tells the main thread alone of a signal, between two of its own instructions. A compiler that is called from
there calls back into Python for each message, gets the KeyboardInterrupt in answer to that, and drops it. So it works
in a thread of its own, and the main thread waits where it can be interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_NOTICE_S = 0.2  # how often the main thread looks up, for systems that do not wake it
_PATIENCE_S = 20.0  # for work that was asked to end


def interruptible(work: Callable[[threading.Event], T]) -> T:
    """What `work` returns or raises. It is given an event that is set when it should end early.

    Raises:
        KeyboardInterrupt: in the main thread, after the work has ended too, or has not for too long.
    """
    if threading.current_thread() is not threading.main_thread():
        return work(threading.Event())
    stop, done = threading.Event(), Future[T]()
    threading.Thread(target=_finish, args=(work, stop, done), daemon=True).start()
    try:
        # Not `join`: before Python 3.13 a thread whose join is interrupted counts as ended.
        while not wait([done], _NOTICE_S).done:
            pass
    except KeyboardInterrupt:
        stop.set()
        wait([done], _PATIENCE_S)
        raise
    return done.result()


def _finish(work: Callable[[threading.Event], T], stop: threading.Event, done: Future[T]) -> None:
    try:
        done.set_result(work(stop))
    except BaseException as error:
        done.set_exception(error)
