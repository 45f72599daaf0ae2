"""A step that looks up its minibatch and rates finds what the host would have set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from fixtures.second_device import metered, second_device
from torch import Tensor

from fimaq_deploy.calibration.learning.batches import minibatches
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.calibration.learning.steps import Steps, Tables

ITERATIONS = 9
CPU = torch.device("cpu")


def order() -> Iterator[Tensor]:
    torch.manual_seed(0)
    return minibatches(10, 4)


def rates(progress: float) -> list[float]:
    return [1 - progress, 3 * progress**2]


def at(iteration: int) -> float:
    return iteration / ITERATIONS


def faster(iteration: int) -> float:
    return min(1.0, iteration / 6)


def test_the_host_is_told_before_each_iteration() -> None:
    told: list[list[float]] = []
    steps = Steps(order(), list, rates, lambda found: told.append(list(found)))
    found = []
    for iteration in range(ITERATIONS):
        steps.prepare(iteration, at)
        found.append(steps.begin())
    assert told == [rates(at(iteration)) for iteration in range(ITERATIONS)]
    assert all(map(torch.equal, found, itertools.islice(order(), ITERATIONS)))


@pytest.mark.parametrize("changes_at", [None, 4])
def test_a_step_finds_the_same_by_itself(changes_at: int | None) -> None:
    with second_device() as device:
        values = torch.zeros(2, device=device)
        tables = Tables(order(), ITERATIONS, list, rates, values)
        expected = list(itertools.islice(order(), ITERATIONS))
        for iteration in range(ITERATIONS):
            progress = faster if changes_at is not None and iteration >= changes_at else at
            if iteration == changes_at:
                tables.reschedule(progress)
            tables.prepare(iteration, progress)
            with metered() as meter:
                index = tables.begin()
            assert meter.syncs == 0
            assert torch.equal(index.cpu(), expected[iteration])
            assert values.tolist() == pytest.approx(rates(progress(iteration)), rel=1e-6)


def test_between_two_steps_the_host_has_nothing_to_do() -> None:
    with second_device() as device:
        here = Rows(torch.randn(10, 3).to(device), device)
        tables = Tables(order(), ITERATIONS, lambda: [here], rates, torch.zeros(2, device=device))
        tables.prepare(0, at)
        with metered() as meter:
            for iteration in range(1, ITERATIONS):
                tables.prepare(iteration, at)
        assert (meter.launches, meter.syncs, meter.bytes_sent) == (0, 0, 0)


def test_rows_from_elsewhere_arrive_at_one_address() -> None:
    whole = torch.randn(10, 3)
    with second_device() as device:
        rows = Rows(whole, device)
        assert rows.ahead
        tables = Tables(order(), ITERATIONS, lambda: [rows], rates, torch.zeros(2, device=device))
        expected, places = list(itertools.islice(order(), ITERATIONS)), set()
        for iteration in range(ITERATIONS):
            tables.prepare(iteration, at)
            found = rows[tables.begin()]
            places.add(found.data_ptr())
            assert torch.equal(found.cpu(), whole[expected[iteration]])
            assert torch.equal(rows[2:5].cpu(), whole[2:5])
        assert len(places) == 1
