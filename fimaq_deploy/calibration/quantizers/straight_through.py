"""Fake quantization with gradients that pass straight through the rounding, as autograd's functions.

They are what a learning step calls most. Each is one node of autograd's graph instead of the handful that its formula
would make, because for a small block the host's bookkeeping takes longer than the arithmetic. Scales are trained as LSQ
does (Esser et al., "Learned Step Size Quantization", ICLR 2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import is_host


class FakeQuantize(torch.autograd.Function):
    """`scale * clamp(round(x / scale), low, low + top)` with low = -round(offset); gradients to x, scale and offset.

    keep: (..., 1), 1 for rows of x that stay as they are and 0 for the others, or None.
    Elementwise work is most of what a small block costs, so it goes over memory as few times as it can.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None = None) -> Tensor:
        # On a CPU, numbers clamp faster than tensors; on a GPU, fetching them would wait for the device.
        ctx.numbers = is_host(offset.device) and not torch.compiler.is_compiling()
        low: Any = -round(offset.item()) if ctx.numbers else -offset.round()
        out = x.div(scale).round_().clamp_(low, low + top).mul_(scale)
        ctx.save_for_backward(x, scale, out, keep)
        ctx.bounds = (low - 0.5, low + top + 0.5) if ctx.numbers else None
        return out if keep is None else torch.lerp(out, x, keep)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        (whole,) = grads
        x, scale, out, keep = ctx.saved_tensors
        grad = whole if keep is None else whole * (1 - keep)
        if ctx.numbers:
            step = scale.item()
            grad_x = torch.ops.aten.hardtanh_backward(grad, x, ctx.bounds[0] * step, ctx.bounds[1] * step)
        else:
            grad_x = torch.where((x - out).abs() <= scale / 2, grad, 0.0)
        # Inside, d(out)/d(scale) is the rounding error; outside it is the bound itself.
        grad_scale = (torch.dot(grad.flatten(), out.flatten()) - torch.dot(grad_x.flatten(), x.flatten())) / scale
        grad_offset = (grad_x.sum() - grad.sum()) * scale if ctx.needs_input_grad[2] else None
        return grad_x if keep is None else torch.addcmul(grad_x, whole, keep), grad_scale, grad_offset, None, None


class RoundedWeight(torch.autograd.Function):
    """`scale * clamp(round(latent + delta), low, high)`; gradients to delta and scale.

    latent, delta: [out, in]; scale: [out, in] or [out, 1].
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, delta: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        rounded = (latent + delta).round_()
        integers = rounded.clamp(low, high)
        ctx.save_for_backward(rounded, integers, scale)
        ctx.bounds = low, high
        return integers * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor | None, None, None]:
        (grad,) = grads
        rounded, integers, scale = ctx.saved_tensors
        grad_scale: Tensor | None = None
        if ctx.needs_input_grad[2]:
            grad_scale = grad * integers
            grad_scale = grad_scale if scale.shape == grad.shape else grad_scale.sum(1, keepdim=True)
        # As of torch's clamp: at the outermost integers nothing pulls any more.
        return None, torch.ops.aten.hardtanh_backward(grad * scale, rounded, *ctx.bounds), grad_scale, None, None


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_straight_through(x: Tensor) -> Tensor:
    """round(x) with the gradient of the identity."""
    return _RoundStraightThrough.apply(x)
