"""The best mix of formats for every budget: a multiple-choice knapsack, solved by dynamic programming.

Losses of layers add up: to second order the divergence of the outputs is a quadratic form of all deviations, and what
is left out are the products between layers, which a second look at a mix corrects (`mixes`).

A mix that another one beats in both cost and loss is left out as soon as it arises; what is left has few members where
layers have few sizes, as in transformers, and there the result is exact. Beyond `POINTS` of them the best of each of so
many steps of cost goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fimaq_deploy.calibration.mixing.options import Option, Options

POINTS = 50_000


@dataclass(frozen=True)
class Mix:
    """A format for each layer, what they cost together, and the sum of their losses."""

    formats: dict[str, str]
    cost: int
    loss: float


def front(options: Options, cost: Callable[[Option], int]) -> list[Mix]:
    """The least loss for every cost, from the cheapest mix to the one with the least loss."""
    costs, losses, taken = np.zeros(1, np.int64), np.zeros(1), []
    for each in options.values():
        own, lost = np.array([cost(one) for one in each], np.int64), np.array([one.loss for one in each])
        costs, losses = (costs[:, None] + own).ravel(), (losses[:, None] + lost).ravel()
        best = _best(costs, losses)
        costs, losses = costs[best], losses[best]
        taken.append(best)
    return [_traced(point, options, int(costs[point]), float(losses[point]), taken) for point in range(len(costs))]


def cheapest_within(found: list[Mix], budget: float) -> Mix | None:
    """The mix of least loss that costs at most so much; None where none does."""
    return next((mix for mix in reversed(found) if mix.cost <= budget), None)


def _best(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Where the mixes are that no other one beats, by rising cost; `POINTS` at most."""
    rising = np.lexsort((losses, costs))
    falling = losses[rising]
    kept = rising[falling < np.minimum.accumulate(np.concatenate([[np.inf], falling[:-1]]))]
    if len(kept) <= POINTS:
        return kept
    # The last of a step, which is the best of it: costs stay what they are, so no budget is exceeded.
    steps = (costs[kept] - costs[kept[0]]) * POINTS // (costs[kept[-1]] - costs[kept[0]] + 1)
    ends = np.append(steps[1:] != steps[:-1], True)
    ends[0] = True  # the cheapest one stays, whatever is better
    return kept[ends]


def _traced(point: int, options: Options, cost: int, loss: float, taken: list[np.ndarray]) -> Mix:
    """The options that lead to a point. taken: for each layer, where its points were among points × options before."""
    formats = {}
    for (name, each), origins in zip(reversed(list(options.items())), reversed(taken), strict=True):
        point, pick = divmod(int(origins[point]), len(each))
        formats[name] = each[pick].format
    return Mix(dict(reversed(formats.items())), cost, loss)
