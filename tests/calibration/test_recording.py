"""A step that is run from its list of operators does what it did, with the numbers of now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.adam import HostAdam
from fimaq_deploy.calibration.recording import node, recorded


class _Learning:
    """A small network, an optimiser, random numbers, a batch and a rate that change from step to step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
        self.twice = nn.Parameter(torch.randn(3))
        self.group = {"params": [*self.net.parameters(), self.twice], "lr": 0.01}
        self.adam = HostAdam([self.group])
        self.data, self.total, self.batch = torch.randn(20, 6), torch.zeros(()), torch.arange(4)

    def step(self) -> tuple[Tensor, Tensor]:
        index = node(lambda: self.batch)()
        with torch.enable_grad():
            x = self.data[index] + torch.rand(4, 1).lt_(0.5)
            output = self.net(x).add(self.twice).mul(self.twice)
            first, second = output.split([1, 2], 1)
            loss = torch.cat([second, first], 1).square().mean()
            loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        self.total.add_(loss.detach())
        return loss.detach(), output.detach()

    def changed(self, number: int) -> None:
        self.batch, self.group["lr"] = torch.arange(number, number + 4), 0.01 / (1 + number)


def test_a_recorded_step_learns_what_the_step_learns() -> None:
    def learned(recording: bool) -> list[Tensor]:
        learning = _Learning()
        again: Callable[[], tuple[Tensor, ...]] | None = None
        found: list[Tensor] = []
        torch.manual_seed(1)
        for number in range(8):
            learning.changed(number)
            if again is not None:
                found += again()
            elif recording and number == 1:  # Adam's moments are made in the first step
                results, again = recorded(learning.step)
                assert again is not None
                found += results
            else:
                found += learning.step()
        return [*found, learning.total, *learning.group["params"]]  # type: ignore[misc]

    assert all(torch.equal(one, other) for one, other in zip(learned(True), learned(False), strict=True))


def test_results_do_not_share_memory_with_those_of_the_next_call() -> None:
    number = torch.zeros(())
    _, again = recorded(lambda: (number.add_(1) * 2,))
    assert again is not None
    first, second = again()[0], again()[0]
    assert (float(first), float(second)) == (4, 6)


def test_a_step_that_asks_for_a_number_is_not_run_from_a_list() -> None:
    x = torch.ones(())
    (result,), again = recorded(lambda: (x * x.item(),))
    assert float(result) == 1 and again is None


def test_a_node_asks_for_numbers_each_time() -> None:
    x = torch.ones(())
    doubled = node(lambda t: t * (t.item() + 1))
    _, again = recorded(lambda: (doubled(x) + 1,))
    assert again is not None
    x.fill_(3)
    assert float(again()[0]) == 13


@pytest.mark.parametrize("sign", [False, True])
def test_one_gradient_of_two_parameters_is_not_changed_through_the_other(sign: bool) -> None:
    one, other = (nn.Parameter(torch.full((2,), 3.0)) for _ in range(2))

    def step() -> tuple[Tensor, Tensor]:
        one.grad = other.grad = None
        with torch.enable_grad():
            ((one + other) * torch.tensor([2.0, 5.0])).sum().backward()
        assert one.grad is not None and other.grad is not None
        if sign:
            one.grad.sign_()
        return one.grad.clone(), other.grad.clone()

    expected, (_, again) = step(), recorded(step)
    assert again is not None
    assert all(torch.equal(left, right) for left, right in zip(again(), expected, strict=True))
