"""Weights that are rounded while their roundings are learned: forward and backward.

The forward pass reads the latent weights and their deltas and writes the weights, the backward pass reads both again
beside the gradient, makes the integers anew and writes the gradient of the deltas and of the scales. A scale serves a
row, or a block of a row: a matrix is taken as one row for each scale, whose sum one program makes in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fimaq_deploy.calibration.fused.tiles import Tiles, read_by_products, to_even


@triton.jit
def _rounded(
    latent_at: tl.tensor, delta_at: tl.tensor, place: tl.tensor, inside: tl.tensor, low: tl.tensor, high: tl.tensor
) -> tl.tensor:
    """`round(latent + delta)`, or one step more than the grid has where it lies further out."""
    latent = tl.load(latent_at + place, mask=inside, other=0.0).to(tl.float32)
    steps = latent + tl.load(delta_at + place, mask=inside, other=0.0).to(tl.float32)
    near = tl.minimum(tl.maximum(steps, low - 1), high + 1)
    return tl.where(steps == steps, to_even(near), steps)  # NaN stays


@triton.jit
def _clamped(rounded: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    return tl.where(rounded < low, low, tl.where(rounded > high, high, rounded))


@triton.jit
def _forward(
    latent_at: tl.tensor,
    delta_at: tl.tensor,
    scale_at: tl.tensor,
    out_at: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * tall + tl.arange(0, tall)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    there = row < rows
    place, inside = (row * columns)[:, None] + column[None, :], there[:, None] & (column < columns)[None, :]
    scale = tl.load(scale_at + row, mask=there, other=0.0).to(tl.float32)
    out = _clamped(_rounded(latent_at, delta_at, place, inside, low, high), low, high) * scale[:, None]
    tl.store(out_at + place, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad_at: tl.tensor,
    latent_at: tl.tensor,
    delta_at: tl.tensor,
    scale_at: tl.tensor,
    grad_delta_at: tl.tensor,
    grad_scale_at: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    learns_scale: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * tall + tl.arange(0, tall)
    there = row < rows
    scale = tl.load(scale_at + row, mask=there, other=0.0).to(tl.float32)
    of_scale = tl.zeros((tall, wide), tl.float32)
    for first in range(0, columns, wide):
        column = first + tl.arange(0, wide)
        place, inside = (row * columns)[:, None] + column[None, :], there[:, None] & (column < columns)[None, :]
        rounded = _rounded(latent_at, delta_at, place, inside, low, high)
        grad = tl.load(grad_at + place, mask=inside, other=0.0).to(tl.float32)
        # As of torch's clamp: at the outermost integers nothing pulls any more.
        pulled = tl.where((rounded <= low) | (rounded >= high), 0.0, grad * scale[:, None])
        tl.store(grad_delta_at + place, pulled.to(grad_delta_at.dtype.element_ty), mask=inside)
        if learns_scale:
            of_scale += grad * _clamped(rounded, low, high)
    if learns_scale:
        tl.store(grad_scale_at + row, tl.sum(of_scale, 1).to(grad_scale_at.dtype.element_ty), mask=there)


class RoundedWeight(torch.autograd.Function):
    """`scale * clamp(round(latent + delta), low, high)`; gradients to delta and scale.

    latent, delta: [out, in]; scale: [out, blocks of inputs]. Under autocast the result has the type that products read.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, delta: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        latent, delta, scale = latent.contiguous(), delta.contiguous(), scale.contiguous()
        ctx.save_for_backward(latent, delta, scale)
        ctx.tiles = Tiles.of((scale.numel(), latent.numel() // scale.numel()))
        ctx.numbers = float(low), float(high), ctx.tiles.rows, ctx.tiles.columns
        out = torch.empty_like(latent, dtype=read_by_products(latent))
        _forward[ctx.tiles.grid](latent, delta, scale, out, *ctx.numbers, **ctx.tiles.form)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor | None, None, None]:
        latent, delta, scale = ctx.saved_tensors
        grad_delta, grad_scale = torch.empty_like(delta), torch.empty_like(scale) if ctx.needs_input_grad[2] else None
        tensors = grads[0].contiguous(), latent, delta, scale, grad_delta, grad_scale
        _backward[ctx.tiles.grid[:1]](*tensors, *ctx.numbers, grad_scale is not None, **ctx.tiles.form)
        return None, grad_delta, grad_scale, None, None
