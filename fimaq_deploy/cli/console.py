"""Where commands print: results on stdout, progress and failures on stderr."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.status import Status

_LOG_WIDTH = 120  # of a file or a CI log, where Rich would assume 80 columns and cut names in tables


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _LOG_WIDTH
    return console


stdout, stderr = _console(), _console(stderr=True)


def print_failure(text: str) -> None:
    """One red line on stderr, never wrapped."""
    stderr.print(Text(text, style="bold red"), soft_wrap=True)


class StepLine:
    """Prints a line for each finished step of long work, and on a terminal the step that is running."""

    def __init__(self) -> None:
        self._step, self._started = "", 0.0
        self._status: Status = stderr.status("")

    def __enter__(self) -> StepLine:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._status.stop()
        if kind is None:
            self._finish()

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        if step != self._step:
            self._finish()
            self._step, self._started = step, time.perf_counter()
        self._status.update(f"{step} {done}/{total} {detail}" if total else step)

    def _finish(self) -> None:
        if self._step:
            stderr.print(f"{self._step:<10}{time.perf_counter() - self._started:8.1f} s")
