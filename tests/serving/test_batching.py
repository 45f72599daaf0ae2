from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from fimaq_deploy.serving.batching import Batcher, Busy


def one(value: float, count: int = 1) -> Any:
    return np.full((count, 2), value, np.float32)


class Engine:
    """Doubles its input, and remembers how many images came at once. gate: it waits for that."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images: Any) -> dict[str, Any]:
        assert self.gate.wait(10)
        self.sizes.append(len(images))
        if (images < 0).any():
            raise ValueError("negative")
        return {"out": images * 2}


async def answered(batcher: Batcher, *batches: Any) -> list[Any]:
    return await asyncio.gather(*(batcher(batch) for batch in batches), return_exceptions=True)


def test_everybody_gets_their_own_rows() -> None:
    async def run() -> list[Any]:
        batcher = Batcher(Engine(), most=4)
        batcher.start()
        found = await answered(batcher, *(one(value, 1 + value % 3) for value in range(20)))
        await batcher.close()
        return found

    for value, found in enumerate(asyncio.run(run())):
        assert np.array_equal(found["out"], one(2 * value, 1 + value % 3))


def test_who_waits_while_the_engine_is_busy_shares_a_batch() -> None:
    async def run(engine: Engine) -> None:
        batcher = Batcher(engine, most=8, delay_s=0)
        batcher.start()
        engine.gate.clear()
        first = asyncio.ensure_future(batcher(one(1)))
        await asyncio.sleep(0.1)
        others = [asyncio.ensure_future(batcher(one(value))) for value in range(10)]
        await asyncio.sleep(0.1)
        engine.gate.set()
        await asyncio.gather(first, *others)
        await batcher.close()

    engine = Engine()
    asyncio.run(run(engine))
    assert engine.sizes == [1, 8, 2]


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    async def run(engine: Engine) -> list[Any]:
        batcher = Batcher(engine, most=4)
        batcher.start()
        found = await answered(batcher, one(1, 9), one(2))
        await batcher.close()
        return found

    engine = Engine()
    first, second = asyncio.run(run(engine))
    assert engine.sizes == [9, 1] and len(first["out"]) == 9 and len(second["out"]) == 1


def test_more_than_may_wait_are_refused_and_the_rest_answered() -> None:
    async def run(engine: Engine) -> list[Any]:
        batcher = Batcher(engine, most=2, queued=4, delay_s=0)
        batcher.start()
        engine.gate.clear()
        waiting = [asyncio.ensure_future(batcher(one(value))) for value in range(12)]
        await asyncio.sleep(0.1)
        engine.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await batcher.close()
        return found

    found = asyncio.run(run(Engine()))
    assert sum(isinstance(answer, Busy) for answer in found) == 8
    assert all("out" in answer for answer in found if not isinstance(answer, Busy))


def test_an_engine_that_fails_fails_its_batch_and_goes_on() -> None:
    async def run() -> Any:
        batcher = Batcher(Engine(), most=1)
        batcher.start()
        with pytest.raises(ValueError, match="negative"):
            await batcher(one(-1))
        found = await batcher(one(3))
        await batcher.close()
        return found

    assert np.array_equal(asyncio.run(run())["out"], one(6))


def test_who_has_gone_is_not_computed_and_closing_answers_who_waits() -> None:
    async def run(engine: Engine) -> Any:
        batcher = Batcher(engine, most=1, delay_s=0)
        batcher.start()
        engine.gate.clear()
        first, gone, last = (asyncio.ensure_future(batcher(one(value))) for value in (1, 2, 3))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        await batcher.close()
        with pytest.raises(Busy):
            await batcher(one(4))
        return await first, await last

    engine = Engine()
    asyncio.run(run(engine))
    assert engine.sizes == [1, 1]
