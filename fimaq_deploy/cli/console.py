"""Where commands print: results on stdout, progress and failures on stderr."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from fimaq_deploy.cli.stopping import stop_if_asked

_LOG_WIDTH = 120  # of a file or a CI log, where Rich would assume 80 columns and cut names in tables
_LOG_EVERY_S = 30.0


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _LOG_WIDTH
    return console


stdout, stderr = _console(), _console(stderr=True)


def print_failure(text: str) -> None:
    """One red line on stderr, never wrapped, whatever a user's own names in it hold."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    with suppress(OSError):  # a terminal that was closed
        stderr.print(Text(line, style="bold red"), soft_wrap=True)


class StepLine:
    """A line for each finished step of long work; while one runs, a bar on a terminal and else a line now and then.

    every_s: how often that line comes. Both tell how long the step has taken and about how long it still will.
    """

    def __init__(self, every_s: float = _LOG_EVERY_S) -> None:
        self._every_s, self._ended = every_s, threading.Event()
        self._step, self._count, self._detail, self._started = "", (0, 0), "", 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            _Told(self),
            console=stderr,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._log = threading.Thread(target=self._tell_now_and_then, daemon=True)

    def __enter__(self) -> StepLine:
        self._before = _LOGGER.level
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.addHandler(_HANDLER)
        if stderr.is_interactive:
            self._bar.start()
        else:
            self._log.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if self._log.is_alive():
            self._log.join()  # no line of a step behind what comes next
        _LOGGER.removeHandler(_HANDLER)
        _LOGGER.setLevel(self._before)
        if self._bar.live.is_started:
            self._bar.stop()
        if kind is None:
            self._finish()

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        stop_if_asked()
        if step != self._step:
            self._finish()
            self._step, self._started = step, time.perf_counter()
        self._count, self._detail = (done, total), detail
        self._bar.update(self._task, description=step, completed=done, total=total or None)

    def told(self) -> str:
        """Where the step is, how long it has taken and about how long it still will, as far as that is known."""
        (done, total), seconds = self._count, time.perf_counter() - self._started
        counted = f"{done}/{total}" if total else ""
        left = f"about {duration(seconds / done * (total - done))} left" if 0 < done < total else ""
        where = f"{counted} {self._detail}".strip()
        return ", ".join(part for part in (where, duration(seconds), left) if part)

    def _tell_now_and_then(self) -> None:
        while not self._ended.wait(self._every_s):
            if self._step:
                stderr.print(f"{self._step:<10}{self.told()}", soft_wrap=True)

    def _finish(self) -> None:
        if self._step:
            stderr.print(f"{self._step:<10}{time.perf_counter() - self._started:8.1f} s")


class _Lines(logging.Handler):
    """What the library has to tell while it works, a line each, above a bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a terminal that was closed
            stderr.print(record.getMessage(), soft_wrap=True)


_LOGGER, _HANDLER = logging.getLogger("fimaq_deploy"), _Lines()


class _Told(ProgressColumn):
    """Behind the bar, always as it is now."""

    def __init__(self, line: StepLine) -> None:
        super().__init__()
        self._line = line

    def render(self, task: Task) -> Text:
        return Text(self._line.told())


def duration(seconds: float) -> str:
    """To read at a glance: 42 s, 7 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
