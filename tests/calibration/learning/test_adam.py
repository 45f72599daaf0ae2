"""Adam on the host takes the steps of torch's, bit for bit."""

from __future__ import annotations

import torch
from torch import nn

from fimaq_deploy.calibration.learning.adam import HostAdam, adam


def _groups() -> list[dict[str, object]]:
    torch.manual_seed(0)
    shapes: list[list[tuple[int, ...]]] = [[(), (1,), (7, 1)], [(33, 5), (64,), (9,)]]
    return [
        {"params": [nn.Parameter(torch.randn(shape)) for shape in own], "lr": lr}
        for own, lr in zip(shapes, (1e-1, 1e-3), strict=True)
    ]


def test_steps_are_those_of_torch() -> None:
    ours, theirs = _groups(), _groups()
    optimisers = HostAdam(ours), torch.optim.Adam(theirs, fused=True)
    learned = [[each for group in groups for each in group["params"]] for groups in (ours, theirs)]  # type: ignore[attr-defined]
    for step in range(20):
        for optimiser, parameters in zip(optimisers, learned, strict=True):
            torch.manual_seed(step)
            for parameter in parameters[:-1]:  # the last one has no part in the loss
                parameter.grad = torch.randn_like(parameter)
            for group in optimiser.param_groups:
                group["lr"] *= 0.9
            optimiser.step()
            optimiser.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*learned, strict=True))
    assert all(parameter.grad is None for parameter in learned[0])
    assert torch.equal(learned[0][-1], _groups()[1]["params"][-1])  # type: ignore[index]


def test_other_devices_have_that_of_torch() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2, device="meta"))], "lr": 0.1}]
    assert isinstance(adam(groups, torch.device("cpu")), HostAdam)
    assert isinstance(adam(groups, torch.device("meta")), torch.optim.Adam)
