"""The best mix of formats for every budget: a multiple-choice knapsack, solved by dynamic programming.

Losses of layers add up: to second order the divergence of the outputs is a quadratic form of all deviations, and what
is left out are the products between layers, which a second look at a mix corrects (`mixes`).

The result is exact where all costs are multiples of one number that goes into them at most `CELLS` times, as they are
in transformers, whose layers have few sizes. Elsewhere costs are rounded up to `CELLS` steps, so that no budget is
exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fimaq_deploy.calibration.mixing.options import Option, Options

CELLS = 50_000


@dataclass(frozen=True)
class Mix:
    """A format for each layer, what they cost together, and the sum of their losses."""

    formats: dict[str, str]
    cost: int
    loss: float


def front(options: Options, cost: Callable[[Option], int]) -> list[Mix]:
    """The least loss for every cost, from the cheapest mix to the one with the least loss."""
    costs = {name: [cost(one) for one in each] for name, each in options.items()}
    least = {name: min(each) for name, each in costs.items()}
    extra = {name: [one - least[name] for one in each] for name, each in costs.items()}
    unit = _unit([one for each in extra.values() for one in each], sum(map(max, extra.values())))
    cells = sum(-(-max(each) // unit) for each in extra.values()) + 1
    best, taken = np.zeros(1), []
    for name, each in options.items():
        best, picks = _extended(best, [-(-one // unit) for one in extra[name]], [one.loss for one in each], cells)
        taken.append(picks)
    falling = [cell for cell in range(len(best)) if cell == 0 or best[cell] < best[:cell].min()]
    return [_traced(cell, options, costs, extra, taken, unit) for cell in falling]


def cheapest_within(found: list[Mix], budget: float) -> Mix | None:
    """The mix of least loss that costs at most so much; None where none does."""
    return next((mix for mix in reversed(found) if mix.cost <= budget), None)


def _unit(costs: list[int], total: int) -> int:
    """What costs are counted in."""
    divisor = math.gcd(*costs) or 1
    return divisor if total // divisor <= CELLS else -(-total // CELLS)


def _extended(best: np.ndarray, steps: list[int], losses: list[float], cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The least loss for each number of steps with one layer more, and which of its options that takes."""
    length = min(cells, len(best) + max(steps))
    extended, picks = np.full(length, np.inf), np.zeros(length, np.int8)
    for pick, (step, loss) in enumerate(zip(steps, losses, strict=True)):
        with_it = np.full(length, np.inf)
        with_it[step : step + len(best)] = (best + loss)[: length - step]
        better = with_it < extended
        extended[better], picks[better] = with_it[better], pick
    return extended, picks


def _traced(
    cell: int,
    options: Options,
    costs: dict[str, list[int]],
    extra: dict[str, list[int]],
    taken: list[np.ndarray],
    unit: int,
) -> Mix:
    """The options that lead to a cell."""
    formats, cost, loss = {}, 0, 0.0
    for name, picks in zip(reversed(list(options)), reversed(taken), strict=True):
        pick = int(picks[cell])
        formats[name] = options[name][pick].format
        cost, loss = cost + costs[name][pick], loss + options[name][pick].loss
        cell -= -(-extra[name][pick] // unit)
    return Mix(dict(reversed(formats.items())), cost, loss)
