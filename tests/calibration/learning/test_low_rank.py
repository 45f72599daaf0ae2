"""The low-rank part of the host gives the numbers and gradients of the formula, bit for bit."""

from __future__ import annotations

import torch

from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.low_rank import LowRank


def test_it_is_the_formula() -> None:
    torch.manual_seed(0)
    d, factor = torch.randn(8, 40), torch.randn(40, 3)
    d[0, :5] = 0
    one, other = d.clone().requires_grad_(), d.clone().requires_grad_()
    value, expected = LowRank.apply(one, [factor]), fisher.low_rank(other, factor)
    (value * 0.3).backward(), (expected * 0.3).backward()
    assert torch.equal(value, expected) and one.grad is not None and other.grad is not None
    assert torch.equal(one.grad, other.grad)
