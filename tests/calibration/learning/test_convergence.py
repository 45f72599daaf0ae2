from __future__ import annotations

import itertools

import pytest
import torch

from fimaq_deploy.calibration.learning.convergence import CEILING, CONVERGED, WINDOW, Schedule


def run(schedule: Schedule, losses: list[float]) -> list[float]:
    """Feed one loss an iteration (the last one for ever) and return the progress of each iteration."""
    progress = []
    for iteration in schedule:
        progress.append(schedule.progress)
        schedule.take_in(torch.tensor(losses[min(iteration, len(losses) - 1)]))
        schedule.observe()
    return progress


def test_without_patience_the_schedule_is_the_ceiling() -> None:
    schedule = Schedule(50, patience=0)
    assert run(schedule, [1.0]) == [i / 50 for i in range(50)]
    assert schedule.outcome == CEILING


def test_a_falling_loss_runs_to_the_ceiling() -> None:
    schedule = Schedule(400, patience=1)
    run(schedule, [0.99**i for i in range(400)])
    assert (schedule.iteration, schedule.outcome) == (400, CEILING)


def test_a_flat_loss_winds_down_after_patience_windows_through_all_rates() -> None:
    schedule = Schedule(1000, patience=3)
    progress = run(schedule, [1.0])
    # The first window sets the mark, the next three do not beat it.
    assert schedule.winding_from == 4 * WINDOW
    assert schedule.iteration == len(progress) == 5 * WINDOW
    assert schedule.outcome == CONVERGED
    steps = [b - a for a, b in itertools.pairwise(progress)]
    assert all(step > 0 for step in steps)
    assert max(steps) < 0.1 and progress[-1] > 0.93


def test_a_wait_for_less_than_it_takes_to_wind_down_is_not_cut_short() -> None:
    schedule = Schedule(4 * WINDOW + 5, patience=3)
    run(schedule, [1.0])
    assert (schedule.iteration, schedule.outcome) == (4 * WINDOW + 5, CEILING)


@pytest.mark.parametrize("better", [0.98, 0.995])
def test_an_improvement_has_to_be_worth_it(better: float) -> None:
    schedule = Schedule(2000, patience=2)
    run(schedule, [better ** (i // WINDOW) for i in range(2000)])
    assert schedule.outcome == (CEILING if better == 0.98 else CONVERGED)


@pytest.mark.parametrize(("better", "outcome"), [(1.0, CONVERGED), (0.95, CEILING)])
def test_the_comparison_goes_on_across_measurements_of_other_scales(better: float, outcome: str) -> None:
    schedule = Schedule(1600, patience=3)
    for iteration in schedule:
        measurement, window = divmod(iteration // WINDOW, 4)
        if iteration % (4 * WINDOW) == 0:
            schedule.restart()
        # What a window brings is lost from sight where a measurement begins, three windows in four count.
        schedule.take_in(torch.tensor(7.0**measurement * better ** (3 * measurement + window)))
        schedule.observe()
    assert schedule.outcome == outcome


def test_a_loss_of_zero_has_no_scale_to_carry_over() -> None:
    schedule = Schedule(400, patience=1)
    for iteration in schedule:
        if iteration == WINDOW:
            schedule.restart()
        schedule.take_in(torch.zeros(()))
        schedule.observe()
    assert schedule.outcome == CONVERGED
