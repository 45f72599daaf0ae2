"""The front holds every best mix: against all mixes, one by one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimaq_deploy.calibration.mixing import front as module
from fimaq_deploy.calibration.mixing.front import cheapest_within, front
from fimaq_deploy.calibration.mixing.options import Option

LAYERS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.floats(0, 1, width=16), min_size=2, max_size=2)), min_size=1, max_size=5
)


def options(layers):
    return {
        f"layer{number}": (
            Option("w4a8", 4 * weights, max(losses), weights),
            Option("w8a8", 8 * weights, min(losses), weights),
            Option("floats", 32 * weights, 0.0, 2 * weights),
        )
        for number, (weights, losses) in enumerate(layers)
    }


@given(LAYERS, st.floats(0, 1))
def test_no_mix_within_a_budget_loses_less(layers, share) -> None:
    given_ = options(layers)
    found = front(given_, lambda one: one.bits)
    everything = [(sum(one.bits for one in mix), sum(one.loss for one in mix)) for mix in product(*given_.values())]
    budget = min(cost for cost, _ in everything) + share * max(cost for cost, _ in everything)
    best = min(loss for cost, loss in everything if cost <= budget)
    chosen = cheapest_within(found, budget)
    assert chosen is not None and chosen.cost <= budget
    assert chosen.loss == pytest.approx(best, abs=1e-9)
    assert list(chosen.formats) == list(given_), "in the order of the model"


@given(LAYERS)
def test_it_rises_in_cost_and_falls_in_loss(layers) -> None:
    found = front(options(layers), lambda one: one.work)
    assert all(a.cost < b.cost and a.loss > b.loss for a, b in pairwise(found))
    assert found[-1].loss == 0


def test_where_costs_have_no_common_measure_no_budget_is_exceeded(monkeypatch) -> None:
    monkeypatch.setattr(module, "POINTS", 20)
    given_ = options([(7 * n + 1, [0.1 * n, 0.01 * n]) for n in range(1, 9)])
    smallest = sum(each[0].bits for each in given_.values())
    for budget in range(smallest, 3 * smallest, 97):
        chosen = cheapest_within(front(given_, lambda one: one.bits), budget)
        assert chosen is not None and chosen.cost <= budget


def test_a_budget_below_the_smallest_has_no_mix() -> None:
    found = front(options([(3, [0.5, 0.1])]), lambda one: one.bits)
    assert cheapest_within(found, found[0].cost - 1) is None
