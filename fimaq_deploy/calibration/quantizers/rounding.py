"""Learned rounding: how latent weights (in units of their scale) become integers while a block is reconstructed.

Each rounding is a module that maps latent weights [out, in] to integers, softly or with straight-through gradients, and
that can be hardened: afterwards plain rounding of the latent weights gives the learned integers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import WeightQuantizer
from fimaq_deploy.calibration.quantizers.float_quant import nearest_straight_through
from fimaq_deploy.calibration.quantizers.grid import FloatWeightGrid
from fimaq_deploy.calibration.quantizers.nearest import above, below, nearest, spacing
from fimaq_deploy.calibration.quantizers.straight_through import round_straight_through
from fimaq_deploy.recipe import Rounding
from fimaq_deploy.target.numbers import FloatFormat


class AdaRound(nn.Module):
    """floor(w/s) + h(V) with the stretched sigmoid h, pushed to 0 or 1 by an annealed regulariser.

    Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020. The floors are computed
    once.
    """

    LOW, HIGH = -0.1, 1.1

    def __init__(self, latent: Tensor) -> None:
        super().__init__()
        self.floor = latent.detach().floor()
        fraction = (latent.detach() - self.floor - self.LOW) / (self.HIGH - self.LOW)
        self.logits = nn.Parameter(torch.logit(fraction.clamp(1e-4, 1 - 1e-4)))

    def up(self) -> Tensor:
        return (self.logits.sigmoid() * (self.HIGH - self.LOW) + self.LOW).clamp(0, 1)

    def forward(self, latent: Tensor) -> Tensor:
        return self.floor + self.up()

    def regulariser(self, exponent: Tensor | float) -> Tensor:
        """Σ 1 - |2h - 1|^exponent: zero once every h has decided."""
        return (1 - (2 * self.up() - 1).abs().pow(exponent)).sum()

    def hardened(self, latent: Tensor) -> Tensor:
        return self.floor + (self.logits >= 0)


class StraightThrough(nn.Module):
    """round(w/s + δ) with a free δ and the gradient of the identity: a weight may move by more than one step."""

    def __init__(self, latent: Tensor) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(latent))

    def forward(self, latent: Tensor) -> Tensor:
        return round_straight_through(latent + self.delta)

    def hardened(self, latent: Tensor) -> Tensor:
        return (latent + self.delta).round()


class SignGradient(StraightThrough):
    """round(w/s + δ), |δ| ≤ ½, moved by the sign of its gradient with a linearly decaying step.

    Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent" (AutoRound), EMNLP Findings 2024.
    """

    @torch.no_grad()
    def step(self, lr: Tensor | float) -> None:
        """One signed step in units of the weight scale."""
        if self.delta.grad is not None:
            self.delta.sub_(self.delta.grad.sign_().mul_(lr)).clamp_(-0.5, 0.5)
            self.delta.grad = None


class FloatAdaRound(AdaRound):
    """AdaRound between the two neighbours on a grid of floats: lower + h(V)·(upper - lower)."""

    def __init__(self, latent: Tensor, form: FloatFormat) -> None:
        low = below(latent.detach(), form)
        gap = above(low, form) - low
        # At the largest value there is nothing above: what stays 0 times whatever h says.
        share = (latent.detach() - low).clamp(min=0) / torch.where(gap > 0, gap, 1.0)
        super().__init__(share.clamp(0, 1 - 2.0**-24))
        self.low, self.gap = low, gap

    def forward(self, latent: Tensor) -> Tensor:
        return self.low + self.up() * self.gap

    def hardened(self, latent: Tensor) -> Tensor:
        return self.low + (self.logits >= 0) * self.gap


class FloatStraightThrough(StraightThrough):
    """The nearest value to w/s + δ·g, g the distance of the values where w/s lies: δ is in steps, as on integers."""

    def __init__(self, latent: Tensor, form: FloatFormat) -> None:
        super().__init__(latent)
        self.form, self.gap = form, spacing(latent.detach(), form)

    def forward(self, latent: Tensor) -> Tensor:
        return nearest_straight_through(latent + self.delta * self.gap, self.form)

    def hardened(self, latent: Tensor) -> Tensor:
        return nearest(latent + self.delta * self.gap, self.form)


class FloatSignGradient(FloatStraightThrough, SignGradient):
    """The same with |δ| ≤ ½, moved by the sign of its gradient."""


_OF_FLOATS: dict[Rounding, type[nn.Module]] = {
    "adaround": FloatAdaRound,
    "straight_through": FloatStraightThrough,
    "sign_gradient": FloatSignGradient,
}
_KINDS: dict[Rounding, type[nn.Module]] = {
    "adaround": AdaRound,
    "straight_through": StraightThrough,
    "sign_gradient": SignGradient,
}


def attach(quantizer: WeightQuantizer, kind: Rounding) -> nn.Module | None:
    """Plug a learnable rounding into a weight quantizer; None for nearest rounding, which learns nothing."""
    if kind == "nearest":
        return None
    latent, grid = quantizer.latent.data, quantizer.grid
    quantizer.soft = (
        _OF_FLOATS[kind](latent, grid.values) if isinstance(grid, FloatWeightGrid) else _KINDS[kind](latent)
    )
    return quantizer.soft


@torch.no_grad()
def harden(quantizer: WeightQuantizer) -> None:
    """Replace the learnable rounding by its decision."""
    if quantizer.soft is not None:
        quantizer.latent.copy_(quantizer.soft.hardened(quantizer.latent))
        quantizer.soft = None
