"""Where a series of measurements changes its level.

A step first: of all splits the one whose sides differ most, for their lengths, is kept where fewer than `LEVEL` of
random orders of the same values have one that differs as much. Where there is none, a stretch that begins and ends
inside, in the same way (circular binary segmentation; Olshen, Venkatraman, Lucito and Wigler, Biostatistics 2004). Then
the parts are looked at. Values that are exact (sizes, kernels) change where they differ. One value says nothing of a
level that varies: a change is seen when there are about four builds behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.02
_ORDERS = 2000
_FEWEST = 5  # values that are looked at
_FEWEST_FOR_A_STRETCH = 12
_MOST = 300  # of the newest: what is older than that has had its change


def change_points(values: Sequence[float], *, exact: bool = False) -> tuple[int, ...]:
    """The numbers of the values with which a new level begins, ascending."""
    array = np.asarray(values, np.float64)
    if exact:
        return tuple(int(place) for place in np.flatnonzero(np.diff(array)) + 1)
    skipped = max(len(array) - _MOST, 0)
    return tuple(_splits(array[skipped:], skipped))


def _splits(values: NDArray[np.float64], offset: int) -> list[int]:
    if len(values) < _FEWEST or np.ptp(values) == 0:
        return []
    orders = np.random.default_rng(len(values)).permuted(np.tile(values, (_ORDERS, 1)), axis=1)
    edges = _step(values, orders) or _stretch(values, orders)
    if not edges:
        return []
    parts = [0, *edges, len(values)]
    inner = [split for one, other in pairwise(parts) for split in _splits(values[one:other], offset + one)]
    return sorted([*inner, *(offset + edge for edge in edges)])


def _step(values: NDArray[np.float64], orders: NDArray[np.float64]) -> list[int]:
    """Where the second side of the best split begins; nothing where chance has as good ones."""
    own = np.array([float(_beside(values[None], length)[0, 0]) for length in range(1, len(values))])
    chance = np.max([_beside(orders, length)[:, 0] for length in range(1, len(values))], axis=0)
    return [int(own.argmax()) + 1] if _is_rare(float(own.max()), chance) else []


def _stretch(values: NDArray[np.float64], orders: NDArray[np.float64]) -> list[int]:
    """The first value of the best stretch and the one behind its last; nothing where chance has as good ones."""
    if len(values) < _FEWEST_FOR_A_STRETCH:
        return []
    found = [(_beside(values[None], length)[0], length) for length in range(1, len(values))]
    distance, start, length = max((float(far.max()), int(far.argmax()), length) for far, length in found)
    chance = np.max([_beside(orders, length).max(axis=1) for length in range(1, len(values))], axis=0)
    inside = {start, start + length} - {0, len(values)}
    return sorted(inside) if _is_rare(distance, chance) else []


def _is_rare(distance: float, chance: NDArray[np.float64]) -> bool:
    reached = (chance >= distance * (1 - 1e-9)).sum()
    return bool((1 + reached) / (1 + len(chance)) <= LEVEL)


def _beside(rows: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """For each row and each first value, the sum of a stretch beside what the row lets expect, by its spread."""
    count = rows.shape[1]
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    far = np.abs(sums[:, length:] - sums[:, :-length] - length / count * sums[:, -1:])
    return far / np.sqrt(length * (1 - length / count))
