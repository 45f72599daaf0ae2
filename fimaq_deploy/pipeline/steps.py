"""The steps of long work: whoever waits is told of each, and how long it took is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

# Told how many parts of a step are done, of how many, and what comes next.
Counter = Callable[[int, int, str], None]


class Progress(Protocol):
    """Called as the work goes on. `total` is 0 where a step is not counted."""

    def __call__(self, step: str, done: int, total: int, detail: str) -> None: ...


def silent(step: str, done: int, total: int, detail: str) -> None:
    """For nobody who waits."""


@dataclass(frozen=True)
class Step:
    """A step that is done."""

    name: str
    seconds: float


class Steps:
    """Runs steps one after the other. `done` holds those that ended well."""

    def __init__(self, progress: Progress | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._progress = progress or silent
        self._clock = clock
        self.done: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Counter]:
        """Inside, tell what is done of it with the function that this yields."""
        self._progress(name, 0, 0, "")
        started = self._clock()
        yield lambda done, total, detail: self._progress(name, done, total, detail)
        self.done.append(Step(name, self._clock() - started))
