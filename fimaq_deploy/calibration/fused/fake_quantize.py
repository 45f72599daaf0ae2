"""Fake quantization of a large tensor: forward and backward.

Written in torch's operators, both go over the tensor about thirty times. Here the forward pass reads x and writes the
result, and the backward pass reads x and the gradient and writes the gradient of x; rows that QDrop leaves in full
precision are part of both. The numbers are those of torch's operators: IEEE division, rounding half to even, sums in a
fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
_PROGRAMS = 1024  # at most, each with a partial sum of its own
_TO_EVEN = tl.constexpr(1.5 * 2**23)  # adding and taking it away rounds what is below 2**22 half to even


@triton.jit
def _rounded(x: tl.tensor, scale: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    steps = tl.div_rn(x, scale)
    near = tl.minimum(tl.maximum(steps, low - 1), high + 1)  # one step more than the grid has: it rounds as before
    steps = tl.where(steps == steps, (near + _TO_EVEN) - _TO_EVEN, steps)  # NaN stays
    return tl.where(steps < low, low, tl.where(steps > high, high, steps))


@triton.jit
def _forward(
    x_at: tl.tensor,
    out_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    keep_at: tl.tensor,
    top: tl.tensor,
    size: tl.tensor,
    row: tl.tensor,
    drops: tl.constexpr,
    block: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = -((tl.load(offset_at).to(tl.float32) + _TO_EVEN) - _TO_EVEN)
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < size
    x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
    out = _rounded(x, scale, low, low + top) * scale
    if drops:
        keep = tl.load(keep_at + place // row, mask=inside, other=0)
        out = tl.where(keep != 0, x, out)
    tl.store(out_at + place, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad_at: tl.tensor,
    x_at: tl.tensor,
    grad_x_at: tl.tensor,
    sums_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    keep_at: tl.tensor,
    top: tl.tensor,
    size: tl.tensor,
    row: tl.tensor,
    rounds: tl.tensor,
    drops: tl.constexpr,
    block: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = -((tl.load(offset_at).to(tl.float32) + _TO_EVEN) - _TO_EVEN)
    first = tl.program_id(0).to(tl.int64) * rounds * block
    of_scale = tl.zeros((block,), tl.float32)
    of_offset = tl.zeros((block,), tl.float32)
    for turn in range(rounds):
        place = first + turn * block + tl.arange(0, block)
        inside = place < size
        x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_at + place, mask=inside, other=0.0).to(tl.float32)
        out = _rounded(x, scale, low, low + top) * scale
        passed = tl.where(tl.abs(x - out) <= scale / 2, grad, 0.0)
        if drops:
            keep = tl.load(keep_at + place // row, mask=inside, other=0) != 0
            of_scale += tl.where(keep, 0.0, grad * out - passed * x)
            of_offset += tl.where(keep, 0.0, passed - grad)
            passed = tl.where(keep, grad, passed)
        else:
            of_scale += grad * out - passed * x
            of_offset += passed - grad
        tl.store(grad_x_at + place, passed.to(grad_x_at.dtype.element_ty), mask=inside)
    tl.store(sums_at + 2 * tl.program_id(0), tl.sum(of_scale, 0))
    tl.store(sums_at + 2 * tl.program_id(0) + 1, tl.sum(of_offset, 0))


def quantize_dequantize(x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None = None) -> Tensor:
    """`scale * clamp(round(x / scale), low, low + top)` with low = -round(offset), without gradients.

    scale, offset: without dimensions. keep: (..., 1), bool; rows of x that stay as they are.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), _BLOCK),)
    _forward[grid](x, out, scale, offset, keep, float(top), x.numel(), x.shape[-1], keep is not None, block=_BLOCK)
    return out


class FakeQuantize(torch.autograd.Function):
    """`quantize_dequantize` with gradients: to x straight through the rounding, to scale and offset as in LSQ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, top: int, keep: Tensor | None) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, scale, offset, keep)
        ctx.top = top
        return quantize_dequantize(x, scale, offset, top, keep)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grad = grads[0].contiguous()
        x, scale, offset, keep = ctx.saved_tensors
        grad_x, blocks = torch.empty_like(x), triton.cdiv(x.numel(), _BLOCK)
        rounds = triton.cdiv(blocks, _PROGRAMS)
        sums = torch.empty(triton.cdiv(blocks, rounds), 2, device=x.device)
        where, size = (scale, offset, keep, float(ctx.top)), (x.numel(), x.shape[-1], rounds)
        _backward[(len(sums),)](grad, x, grad_x, sums, *where, *size, keep is not None, block=_BLOCK)
        of_scale, of_offset = sums.sum(0).unbind()
        return grad_x, of_scale / scale, of_offset * scale if ctx.needs_input_grad[2] else None, None, None
