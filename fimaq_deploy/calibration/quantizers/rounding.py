"""Learned rounding: how latent weights (in units of their scale) become integers while a block is reconstructed.

Each rounding is a module that maps latent weights [out, in] to integers, softly or with straight-through gradients, and
that can be hardened: afterwards plain rounding of the latent weights gives the learned integers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import WeightQuantizer, round_straight_through
from fimaq_deploy.recipe import Rounding


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


_KINDS: dict[Rounding, type[nn.Module]] = {
    "adaround": AdaRound,
    "straight_through": StraightThrough,
    "sign_gradient": SignGradient,
}


def attach(quantizer: WeightQuantizer, kind: Rounding) -> nn.Module | None:
    """Plug a learnable rounding into a weight quantizer; None for nearest rounding, which learns nothing."""
    if kind != "nearest":
        quantizer.soft = _KINDS[kind](quantizer.latent.data)
    return quantizer.soft


@torch.no_grad()
def harden(quantizer: WeightQuantizer) -> None:
    """Replace the learnable rounding by its decision."""
    if quantizer.soft is not None:
        quantizer.latent.copy_(quantizer.soft.hardened(quantizer.latent))
        quantizer.soft = None
