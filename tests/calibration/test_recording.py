"""A step that is run from its list of operators does what it did, with the numbers of now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.adam import HostAdam
from fimaq_deploy.calibration.recording import node, once, recorded


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


def test_what_looks_at_a_tensor_is_not_called_again() -> None:
    x = torch.zeros(2, 3)
    _, again = recorded(lambda: (x.t().reshape(3, 2).t().unsqueeze(0).add(1)[0].view(-1)[1:],))
    assert again is not None
    x.fill_(4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        assert again()[0].tolist() == [5] * 5
    called = {event.key for event in found.key_averages()}
    assert "aten::add" in called and not called & {"aten::t", "aten::view", "aten::unsqueeze", "aten::slice"}


def test_what_is_made_once_is_not_made_again() -> None:
    made: list[Tensor] = []

    @once
    def total() -> Tensor:
        made.append(torch.zeros(()))
        return made[0]

    _, again = recorded(lambda: (total().add_(1),))
    assert again is not None
    assert [float(again()[0]) for _ in range(2)] == [2, 3] and len(made) == 1


def test_a_node_may_write_where_it_is_told() -> None:
    x, told = torch.ones(2), []

    @node
    def doubled(x: Tensor, there: list[Tensor | None] = [None]) -> Tensor:  # noqa: B006
        told.append(there[0])
        return torch.mul(x, 2, out=there[0])

    _, again = recorded(lambda: (doubled(x) + 1,))
    assert again is not None
    x.fill_(3)
    assert again()[0].tolist() == [7, 7]
    assert told[0] is None and told[1] is not None


def test_a_step_whose_shapes_depend_on_numbers_is_not_run_from_a_list() -> None:
    x = torch.tensor([1.0, -1.0])
    (result,), again = recorded(lambda: (x[x > 0],))
    assert result.tolist() == [1] and again is None


def test_a_step_that_looks_at_a_parameters_gradient_is_right_or_not_run_from_a_list() -> None:
    one = nn.Parameter(torch.ones(2, 2))

    def step() -> tuple[Tensor]:
        one.grad = None
        with torch.enable_grad():
            (one * torch.full((2, 2), 3.0)).sum().backward()
        assert one.grad is not None
        one.grad.view(-1)[:2].zero_()
        return (one.grad.clone(),)

    (result,), again = recorded(step)
    assert result.tolist() == [[0, 0], [3, 3]] and again is None
