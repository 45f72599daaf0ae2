"""Fake quantization with gradients that pass straight through the rounding, as autograd's functions.

They are what a learning step calls most. Each is one node of autograd's graph instead of the handful that its formula
would make, because for a small block the host's bookkeeping takes longer than the arithmetic. Scales are trained as LSQ
does (Esser et al., "Learned Step Size Quantization", ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.recording import node


class FakeQuantize(torch.autograd.Function):
    """`scale * clamp(round(x / scale), low, low + top)` with low = -round(offset); gradients to x, scale and offset.

    keep: (..., 1), 1 for rows of x that stay as they are and 0 for the others, or None.
    Elementwise work is most of what a small block costs, so it goes over memory as few times as it can.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None = None) -> Tensor:
        # On a CPU, numbers clamp faster than tensors; on a GPU, fetching them would wait for the device.
        ctx.numbers, ctx.top = is_host(offset.device) and not torch.compiler.is_compiling(), top
        out, mixed = (_on_the_host if ctx.numbers else _elsewhere)(x, scale, offset, top, keep)
        ctx.save_for_backward(x, scale, offset, out, keep)
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        x, scale, offset, out, keep = ctx.saved_tensors
        pulled = _pulled_on_the_host if ctx.numbers else _pulled_elsewhere
        return *pulled(grads[0], x, scale, offset, out, keep, ctx.top, ctx.needs_input_grad[2]), None, None


_Quantized = tuple[Tensor, Tensor]  # every row, and with those that are kept
_Pulled = tuple[Tensor, Tensor, Tensor | None]
_There = Sequence[Tensor | None]  # where results are written, if they lie somewhere already
_NOWHERE = (None, None, None)


@node
def _on_the_host(
    x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None, there: _There = _NOWHERE
) -> _Quantized:
    return _quantized(x, scale, -round(offset.item()), top, keep, there)


def _elsewhere(x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None) -> _Quantized:
    return _quantized(x, scale, -offset.round(), top, keep)


def _quantized(
    x: Tensor, scale: Tensor, low: Any, top: int, keep: Tensor | None, there: _There = _NOWHERE
) -> _Quantized:
    out = torch.div(x, scale, out=there[0]).round_().clamp_(low, low + top).mul_(scale)
    return out, out if keep is None else torch.lerp(out, x, keep, out=there[1])


@node
def _pulled_on_the_host(
    whole: Tensor,
    x: Tensor,
    scale: Tensor,
    offset: Tensor,
    out: Tensor,
    keep: Tensor | None,
    top: int,
    free: bool,
    there: _There = _NOWHERE,
) -> _Pulled:
    grad, low, step = _of_quantized(whole, keep), -round(offset.item()), scale.item()
    grad_x = torch.ops.aten.hardtanh_backward(grad, x, (low - 0.5) * step, (low + top + 0.5) * step)
    return _pulled(whole, grad, grad_x, x, scale, out, keep, free, there)


def _pulled_elsewhere(
    whole: Tensor, x: Tensor, scale: Tensor, offset: Tensor, out: Tensor, keep: Tensor | None, top: int, free: bool
) -> _Pulled:
    grad = _of_quantized(whole, keep)
    grad_x = torch.where((x - out).abs() <= scale / 2, grad, 0.0)
    return _pulled(whole, grad, grad_x, x, scale, out, keep, free)


def _of_quantized(whole: Tensor, keep: Tensor | None) -> Tensor:
    """The gradient of the rows that are not kept."""
    return whole if keep is None else torch.addcmul(whole, whole, keep, value=-1)


def _pulled(
    whole: Tensor,
    grad: Tensor,
    grad_x: Tensor,
    x: Tensor,
    scale: Tensor,
    out: Tensor,
    keep: Tensor | None,
    free: bool,
    there: _There = _NOWHERE,
) -> _Pulled:
    # Inside, d(out)/d(scale) is the rounding error; outside it is the bound itself.
    error = torch.dot(grad.reshape(-1), out.reshape(-1)) - torch.dot(grad_x.reshape(-1), x.reshape(-1))
    grad_scale = torch.div(error, scale, out=there[1])
    grad_offset = torch.mul(grad_x.sum() - grad.sum(), scale, out=there[2]) if free else None
    if keep is None:
        return grad_x if there[0] is None else there[0].copy_(grad_x), grad_scale, grad_offset
    return torch.addcmul(grad_x, whole, keep, out=there[0]), grad_scale, grad_offset


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
