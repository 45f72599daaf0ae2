"""Fake quantizers on grids of floats, in the place of those of integers.

They have the same interface: a scale is learned as a logarithm and used short, values are in units of it. There is no
offset. Gradients pass straight through the rounding inside of the format's range, and scales learn as in LSQ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers.fake_quant import (
    ActivationQuantizer,
    WeightQuantizer,
    current_scale,
    short_scale,
)
from fimaq_deploy.calibration.quantizers.grid import (
    FloatActivationGrid,
    FloatWeightGrid,
    IntegerRange,
)
from fimaq_deploy.calibration.quantizers.nearest import nearest
from fimaq_deploy.target.numbers import FloatFormat

# Twice the range, for another place between the powers of two at no loss but of subnormals, to a quarter of it.
_WIDEST, _NARROWEST = 2.0, 0.25
LEAST_SCALE = 2.0**-14 / _NARROWEST  # so that a search stays above 2^-14, the smallest that float16 has in full


class _FakeQuantizeFloat(torch.autograd.Function):
    """`scale * nearest(x / scale)`; gradients to x and scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, form: FloatFormat) -> Tensor:
        out = nearest(x.div(scale), form).mul_(scale)
        ctx.save_for_backward(x, scale, out)
        ctx.largest = form.largest
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (grad,) = grads
        x, scale, out = ctx.saved_tensors
        grad_x = torch.where(x.abs() <= ctx.largest * scale, grad, 0.0)
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None
        # Inside, d(out)/d(scale) is the rounding error over the scale; outside it is the largest value.
        inside = torch.dot(grad.flatten(), out.flatten()) - torch.dot(grad_x.flatten(), x.flatten())
        return grad_x, inside / scale, None


class _NearestStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, form: FloatFormat) -> Tensor:
        return nearest(x, form)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def nearest_straight_through(x: Tensor, form: FloatFormat) -> Tensor:
    """`nearest` with the gradient of the identity."""
    found: Tensor = _NearestStraightThrough.apply(x, form)
    return found


class FloatActivationQuantizer(ActivationQuantizer):
    """Per-tensor fake quantization of an activation to a floating-point format."""

    grid: FloatActivationGrid  # type: ignore[assignment]

    def __init__(self, grid: FloatActivationGrid, nonnegative: bool = False) -> None:
        super().__init__(None, nonnegative)
        self.grid = grid
        if grid.scale:
            nn.init.constant_(self.scale, grid.scale)

    @torch.no_grad()
    def learn(self, drop: float, lr: float) -> list[dict[str, Any]]:
        if self.grid.scale is None:
            return super().learn(drop, lr)
        self.drop = drop
        return []

    @property
    def top(self) -> int:
        return int(self.grid.values.largest)

    @property
    def offset_bounds(self) -> tuple[int, int]:
        return 0, 0

    def integer_range(self, offset: int | None = None) -> IntegerRange:
        return IntegerRange(0, 0)

    def fit_bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        bound = torch.maximum(low.abs(), high.abs()) / self.grid.values.largest
        if self.grid.scale:
            scale = torch.full_like(bound, self.grid.scale)
        else:
            scale = short_scale(bound.clamp(min=LEAST_SCALE), self.grid.scale_digits, up=True)
        return scale, torch.zeros_like(scale)

    def on_grid(self, steps: Tensor, offset: Tensor) -> Tensor:
        return nearest(steps, self.grid.values)

    def shrunken(self, candidates: int, device: torch.device) -> Tensor:
        return shrunken_floats(candidates, device)

    def _frozen(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.fimaq.quantize_dequantize_float(x, self.scale, self.grid.format)
        return found

    def _learning(self, x: Tensor) -> Tensor:
        keep = self._rows_kept(x)
        quantized: Tensor = _FakeQuantizeFloat.apply(x, current_scale(self), self.grid.values)
        return quantized if keep is None else torch.lerp(quantized, x, keep.to(x.dtype))


class FloatWeightQuantizer(WeightQuantizer):
    """Weights in a floating-point format: `latent` in units of the scale, as on a grid of integers."""

    grid: FloatWeightGrid  # type: ignore[assignment]

    def integers(self) -> Tensor:
        """The values of the format, [out, in]; differentiable while learning."""
        largest = self.grid.values.largest
        if self.soft is None:
            return nearest_straight_through(self.latent, self.grid.values)
        found: Tensor = self.soft(self.latent)
        return found.clamp(-largest, largest)


def shrunken_floats(candidates: int, device: torch.device) -> Tensor:
    """The multiples of the scale that covers a tensor which a search tries, that scale first."""
    others = torch.linspace(_WIDEST, _NARROWEST, candidates - 1, device=device)
    return torch.cat([torch.ones(1, device=device), others])
