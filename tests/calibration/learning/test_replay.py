"""A recorded step does what the function would have done, until it is told that the function is another one."""

from __future__ import annotations

import pytest
import torch
from fixtures.second_device import metered, second_device
from torch import Tensor

from fimaq_deploy.calibration.learning.replay import Replay


class Walker:
    """A step with random numbers, a learned parameter and a switch that Python reads."""

    def __init__(self, device: torch.device) -> None:
        self.place = torch.nn.Parameter(torch.ones(4, device=device))
        self.speed = torch.ones((), device=device)
        self.optimiser = torch.optim.Adam([self.place], lr=0.1)
        self.calls, self.turned = 0, False

    def step(self) -> Tensor:
        self.calls += 1
        sign = -1 if self.turned else 1
        loss = (sign * self.speed * (self.place + torch.rand(4, device=self.place.device))).square().sum()
        loss.backward()
        with torch.no_grad():
            self.place.sub_(self.place.grad * 0.01 * sign)
        self.place.grad = None
        return loss.detach()


def run(replay: Replay[Tensor], walker: Walker, iterations: int) -> list[float]:
    torch.manual_seed(3)
    found = []
    for iteration in range(iterations):
        walker.speed.fill_(1 + iteration)
        found.append(float(replay()))
    return found


def test_on_the_host_the_function_is_called() -> None:
    walker = Walker(torch.device("cpu"))
    run(Replay(walker.step, torch.device("cpu")), walker, 6)
    assert walker.calls == 6


@pytest.mark.parametrize("iterations", [1, 2, 3, 9])
def test_replayed_and_called_are_equal(iterations: int) -> None:
    with second_device() as device:
        called, replayed = Walker(device), Walker(device)
        plain = run(Replay(called.step, device, record=False), called, iterations)
        assert run(Replay(replayed.step, device), replayed, iterations) == plain
        assert torch.equal(called.place.cpu(), replayed.place.cpu())
        assert called.calls == iterations and replayed.calls == min(iterations, 2)


def test_a_replay_costs_the_host_no_launch() -> None:
    with second_device() as device:
        walker = Walker(device)
        replay = Replay(walker.step, device)
        for _ in range(3):
            replay()
        with metered() as meter:
            for _ in range(5):
                replay()
        assert (meter.launches, meter.replays, meter.syncs) == (0, 5, 0)


def test_where_nothing_is_left_to_set_up_the_first_call_is_recorded() -> None:
    with second_device() as device:
        called, replayed = Walker(device), Walker(device)
        plain = run(Replay(called.step, device, record=False), called, 4)
        assert run(Replay(replayed.step, device, warm_up=0), replayed, 4) == plain
        assert replayed.calls == 1


def test_another_function_is_recorded_anew() -> None:
    with second_device() as device:
        called, replayed = Walker(device), Walker(device)
        plain, replay = Replay(called.step, device, record=False), Replay(replayed.step, device)
        for walker, one in ((called, plain), (replayed, replay)):
            run(one, walker, 5)
            walker.turned = True
            one.forget()
            run(one, walker, 5)
        assert torch.equal(called.place.cpu(), replayed.place.cpu())
        assert replayed.calls == 4


def test_what_cannot_be_recorded_is_called_and_said_once() -> None:
    with second_device() as device:
        walker = Walker(device)

        def step() -> Tensor:
            loss = walker.step()
            return loss * bool(loss > 0)

        replay = Replay(step, device)
        with pytest.warns(RuntimeWarning, match="without a recorded step: aten::_local_scalar_dense") as warned:
            for _ in range(6):
                replay()
        assert len(warned) == 1 and walker.calls == 7
