"""How sure a difference is. Pure; every test is two-sided and every interval is at 95 %.

Paired where both measurements saw the same images, which is far sharper: two builds err mostly on the same ones, and
only those where they part say anything.

R. G. Newcombe, Statist. Med. 17 (1998), 873-890 (independent shares) and 2635-2650 (paired shares, method 10);
G. Y. Zou and A. Donner, Statist. Med. 27 (2008), 1693-1702: the same construction for any two intervals.
"""

from __future__ import annotations

from math import comb, exp, log, sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.05
_RESAMPLES = 1000

Interval = tuple[float, float]
Floats: TypeAlias = "NDArray[Any]"


class Pairs(NamedTuple):
    """How many images two predictors got right: both, only the first, only the second, neither."""

    both: int
    first: int
    second: int
    neither: int


def mcnemar(pairs: Pairs) -> float:
    """The probability of a split between the images that only one got right that is no more even than the observed.

    Exact: where both predictors are equally good, each of those images falls to either with probability 1/2.
    """
    fewer, parted = min(pairs.first, pairs.second), pairs.first + pairs.second
    tail = sum(comb(parted, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**parted)


def correlation(pairs: Pairs) -> float:
    """The phi coefficient of being right, in [-1, 1]; a positive one with Newcombe's continuity correction.

    0 where one of them got every image right, or none.
    """
    both, first, second, neither = pairs
    scale = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess: float = both * neither - first * second
    if excess > 0:
        excess = max(excess - sum(pairs) / 2, 0)
    return excess / sqrt(scale) if scale else 0.0


def difference_interval(
    first: float, first_interval: Interval, second: float, second_interval: Interval, correlated: float = 0.0
) -> Interval:
    """The interval of first - second, from the interval of each and the correlation of the two estimates."""
    down = _joint(first - first_interval[0], second_interval[1] - second, correlated)
    up = _joint(first_interval[1] - first, second - second_interval[0], correlated)
    return first - second - down, first - second + up


def ratio_interval(first: float, first_interval: Interval, second: float, second_interval: Interval) -> Interval:
    """The interval of first / second of two independent, positive estimates."""
    low, high = difference_interval(log(first), _logs(first_interval), log(second), _logs(second_interval))
    return exp(low), exp(high)


def paired_interval(first: Floats, second: Floats) -> Interval | None:
    """The interval of mean(first - second) of the same images, by the bootstrap; None where it cannot be told."""
    if first.shape != second.shape or len(first) < 2:
        return None
    apart = first.astype(np.float64) - second
    random = np.random.RandomState(0)
    draws = [apart[random.randint(0, len(apart), len(apart))].mean() for _ in range(_RESAMPLES)]
    return _middle(np.array(draws))


def replicate_interval(first: Floats, second: Floats) -> Interval | None:
    """The interval of first - second, each on the same resamples of the images; None where they are not the same."""
    return _middle(first.astype(np.float64) - second) if first.shape == second.shape else None


def _middle(values: NDArray[np.float64]) -> Interval | None:
    """95 % of them."""
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _joint(a: float, b: float, correlated: float) -> float:
    """How far a difference may lie when one side may lie `a` and the other `b`."""
    return sqrt(max(a * a - 2 * correlated * a * b + b * b, 0.0))


def _logs(interval: Interval) -> Interval:
    return log(interval[0]), log(interval[1])
