"""One node of autograd's graph gives what the formula's operators give, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.straight_through import FakeQuantize, RoundedWeight, round_straight_through


@pytest.mark.parametrize("columns", [1, 32])
@pytest.mark.parametrize(("low", "high"), [(-4, 3), (-128, 127)])
def test_a_rounded_weight_is_rounded_clamped_and_scaled(low: int, high: int, columns: int) -> None:
    torch.manual_seed(0)
    latent, delta, weights = torch.randn(48, 32) * 3, torch.randn(48, 32) * 0.3, torch.randn(48, 32)
    scale = torch.rand(48, columns) + 0.1

    def pulled(one: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        own, units = delta.clone().requires_grad_(), scale.clone().requires_grad_()
        if one:
            out = RoundedWeight.apply(latent, own, units, low, high)
        else:
            rounded = round_straight_through(latent + own)
            inside = (rounded > low) & (rounded < high)
            out = torch.where(inside, rounded, rounded.detach().clamp(low, high)) * units
        (out * weights).sum().backward()
        return out.detach(), own.grad, units.grad

    for one, other in zip(pulled(True), pulled(False), strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


def test_kept_rows_are_mixed_in_as_lerp_does() -> None:
    torch.manual_seed(0)
    values, weights = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    keep = torch.rand(4, 6, 1).lt_(0.5)

    def pulled(one: bool) -> list[Tensor | None]:
        x, scale, offset = values.clone().requires_grad_(), torch.tensor(0.3), torch.tensor(3.0)
        scale.requires_grad_(), offset.requires_grad_()
        if one:
            out = FakeQuantize.apply(x, scale, offset, 7, keep)
        else:
            out = torch.lerp(FakeQuantize.apply(x, scale, offset, 7), x, keep)
        (out * weights).sum().backward()
        return [out.detach(), x.grad, scale.grad, offset.grad]

    for one, other in zip(pulled(True), pulled(False), strict=True):
        assert one is not None and other is not None and torch.equal(one, other)
