"""Requests that wait at the same time run as one batch.

One thread runs the engine. While it is busy requests queue up; when it is free it takes as many as fit into a batch,
and waits for more for a moment only. So a server that is idle answers at once, and a busy one works in full batches.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Run = Callable[[Array], dict[str, Array]]
Observe = Callable[[int, float], None]


class Busy(Exception):
    """As many images wait as may."""


@dataclass
class _Waiting:
    images: Array
    answer: asyncio.Future[dict[str, Array]]


@dataclass
class Batcher:
    """Images to outputs for many callers. Used inside one event loop, between `start` and `close`.

    run: of a batch (N, ...). most: images in a batch; a single request may have more and runs alone. delay_s: how long
    a batch that is not full waits. queued: the most images that may wait. observe: told the images of each batch and
    the seconds that it took.
    """

    run: Run
    most: int = 16
    delay_s: float = 0.001
    queued: int = 1024
    observe: Observe = lambda images, seconds: None
    _queue: deque[_Waiting] = field(default_factory=deque, init=False)
    _woken: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _closing: bool = field(default=False, init=False)

    def start(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return sum(len(one.images) for one in self._queue)

    async def __call__(self, images: Array) -> dict[str, Array]:
        """Raises: Busy, or whatever `run` raised."""
        if self._closing or (self._queue and self.waiting + len(images) > self.queued):
            raise Busy
        one = _Waiting(images, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self._woken.set()
        return await one.answer

    async def close(self) -> None:
        """Answer whoever waits, then end."""
        self._closing = True
        self._woken.set()
        await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._woken.clear()
                await self._woken.wait()
                continue
            if self.delay_s and self.waiting < self.most and not self._closing:
                await asyncio.sleep(self.delay_s)
            batch = self._taken()
            if batch:
                await self._answer(batch)

    def _taken(self) -> list[_Waiting]:
        """Those at the head of the queue that fit into a batch, without whoever has gone."""
        taken: list[_Waiting] = []
        size = 0
        while self._queue and (not taken or size + len(self._queue[0].images) <= self.most):
            one = self._queue.popleft()
            if not one.answer.done():
                taken.append(one)
                size += len(one.images)
        return taken

    async def _answer(self, batch: list[_Waiting]) -> None:
        whole = batch[0].images if len(batch) == 1 else np.concatenate([one.images for one in batch])
        started = time.perf_counter()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self.run, whole)
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        self.observe(len(whole), time.perf_counter() - started)
        start = 0
        for one in batch:
            end = start + len(one.images)
            if not one.answer.done():
                one.answer.set_result({name: array[start:end] for name, array in outputs.items()})
            start = end
