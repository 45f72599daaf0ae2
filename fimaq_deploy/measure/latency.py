"""Latency of several engines in one run, in turns.

A machine's clock drifts, so engines that are timed one after the other are compared with the weather. Here every round
times each engine once, and the speed-up is the median of the rounds' own ratios to the first engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import comb

import numpy as np

from fimaq_deploy.engines.runner import Array, Runner
from fimaq_deploy.errors import UserError


@dataclass(frozen=True)
class Latency:
    """One engine at one batch size. Times are for a whole batch.

    images_per_second: at the median.
    speedup: median over rounds of the first engine's time over this one's; above 1 is faster than the first.
    speedup_interval: the 95 % interval of that median, as the rounds of this one run tell it.
    """

    name: str
    batch_size: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    speedup: float
    speedup_interval: tuple[float, float]


def compare_latency(
    runners: Mapping[str, Runner],
    batch_sizes: Sequence[int] = (1, 8),
    *,
    rounds: int = 50,
    warm_up: int = 5,
    seconds: float | None = 10.0,
    images: Array | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Time every runner at every batch size.

    rounds: the most rounds for one batch size.
    seconds: stop a batch size after this time, but not before 3 rounds; None runs all rounds.
    images: what to run on, (N, C, H, W), repeated or cut to each batch size; None draws noise.
    clock: seconds. `time.process_time` times engines of one thread on a machine that others share.

    Raises:
        UserError: nothing to time, or a number that is not positive.
    """
    if not runners or not batch_sizes:
        raise UserError("nothing to time: name at least one engine and one batch size")
    if min(*batch_sizes, rounds, 1) < 1:
        raise UserError(f"batch sizes {list(batch_sizes)} and {rounds} rounds: expected numbers of at least 1")
    return [
        latency
        for size in batch_sizes
        for latency in _at_batch_size(runners, _batch(runners, images, size), rounds, warm_up, seconds, clock)
    ]


def _batch(runners: Mapping[str, Runner], images: Array | None, size: int) -> Array:
    if images is None:
        first, random = next(iter(runners.values())), np.random.default_rng(0)
        shape = (1, *(side or 224 for side in first.input_shape[1:]))
        pixels = first.dtype == np.uint8
        images = random.integers(0, 256, shape, np.uint8) if pixels else random.standard_normal(shape, np.float32)
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))


def _at_batch_size(
    runners: Mapping[str, Runner],
    batch: Array,
    rounds: int,
    warm_up: int,
    seconds: float | None,
    clock: Callable[[], float],
) -> list[Latency]:
    for runner in runners.values():
        for _ in range(warm_up):
            runner(batch)
    times: dict[str, list[float]] = {name: [] for name in runners}
    started = time.perf_counter()
    for done in range(rounds):
        if seconds is not None and done >= 3 and time.perf_counter() - started > seconds:
            break
        for name, runner in runners.items():
            times[name].append(_timed_ms(runner, batch, clock))
    reference = np.array(next(iter(times.values())))
    return [_summary(name, len(batch), np.array(found), reference) for name, found in times.items()]


def _timed_ms(runner: Runner, batch: Array, clock: Callable[[], float]) -> float:
    started = clock()
    runner(batch)
    return (clock() - started) * 1000


def _summary(name: str, size: int, times_ms: Array, reference_ms: Array) -> Latency:
    p50, p90, p99 = (float(np.percentile(times_ms, share)) for share in (50, 90, 99))
    ratios = reference_ms / times_ms
    return Latency(
        name, size, p50, p90, p99, 1000 * size / p50, float(np.median(ratios)), median_interval(ratios.tolist())
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, whatever the distribution: two order statistics by the sign test.

    Fewer than 6 values cannot give one; then it is their range.
    """
    ordered, count = sorted(values), len(values)
    tails = accumulate(comb(count, k) for k in range(count // 2))
    cut = max(sum(40 * tail <= 2**count for tail in tails) - 1, 0)
    return ordered[cut], ordered[-1 - cut]
