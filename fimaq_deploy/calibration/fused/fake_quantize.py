"""Fake quantization of a large tensor: forward and backward.

Written in torch's operators, both go over the tensor about thirty times. Here the forward pass reads x and writes the
result, and the backward pass reads x and the gradient and writes the gradient of x; rows that QDrop leaves in full
precision are part of both, x may be a view such as q, k and v of one product, and under autocast the result has the
type that the product behind it reads. The numbers are those of torch's operators: IEEE division, rounding half to even,
sums in a fixed order.

A program holds tiles of rows and columns: indices are divided once a row, because for every number that would take
longer than its way to memory and back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fimaq_deploy.calibration.fused.tiles import PROGRAMS, Tiles, read_by_products, to_even

_ROOT_HALF = tl.constexpr(0.5**0.5)
_NORMAL = tl.constexpr((2 * math.pi) ** -0.5)  # the density of a normal distribution at 0


@triton.jit
def rounded(x: tl.tensor, scale: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """`clamp(round(x / scale), low, high)`."""
    steps = tl.div_rn(x, scale)
    near = tl.minimum(tl.maximum(steps, low - 1), high + 1)  # one step more than the grid has: it rounds as before
    steps = tl.where(steps == steps, to_even(near), steps)  # NaN stays
    return tl.where(steps < low, low, tl.where(steps > high, high, steps))


@triton.jit
def lowest(offset_at: tl.tensor) -> tl.tensor:
    """The first integer of a grid with this offset."""
    return -to_even(tl.load(offset_at).to(tl.float32))


@triton.jit
def kept(drawn_at: tl.tensor, line: tl.tensor, rows: tl.tensor, share: tl.tensor) -> tl.tensor:
    """Which rows of a tile stay in full precision, (rows, 1)."""
    return (tl.load(drawn_at + line, mask=line < rows, other=1.0) < share)[:, None]


@triton.jit
def pulled(x: tl.tensor, grad: tl.tensor, out: tl.tensor, scale: tl.tensor, keep: tl.tensor) -> tl.tensor:
    """Gradients of x, and what each number adds to those of scale · d/d(scale) and of the offset / scale."""
    passed = tl.where(tl.abs(x - out) <= scale / 2, grad, 0.0)
    of_scale = tl.where(keep, 0.0, grad * out - passed * x)
    of_offset = tl.where(keep, 0.0, passed - grad)
    return tl.where(keep, grad, passed), of_scale, of_offset


@triton.jit
def _share(x: tl.tensor) -> tl.tensor:
    """GELU(x) / x: the share of a normal distribution that lies below x."""
    return 0.5 * (1.0 + tl.erf(x * _ROOT_HALF))


@triton.jit
def _starts(
    line: tl.tensor,
    inner: tl.tensor,
    middle: tl.tensor,
    outer_stride: tl.tensor,
    middle_stride: tl.tensor,
    inner_stride: tl.tensor,
) -> tl.tensor:
    """Where rows begin that are told apart by three indices."""
    outer = line // inner
    return outer // middle * outer_stride + outer % middle * middle_stride + line % inner * inner_stride


@triton.jit
def _forward(
    x_at: tl.tensor,
    out_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    drawn_at: tl.tensor,
    share: tl.tensor,
    top: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    inner: tl.tensor,
    middle: tl.tensor,
    outer_stride: tl.tensor,
    middle_stride: tl.tensor,
    inner_stride: tl.tensor,
    gelu: tl.constexpr,
    drops: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = lowest(offset_at)
    line = tl.program_id(0).to(tl.int64) * tall + tl.arange(0, tall)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    inside = (line < rows)[:, None] & (column < columns)[None, :]
    start = _starts(line, inner, middle, outer_stride, middle_stride, inner_stride)
    x = tl.load(x_at + (start[:, None] + column[None, :]), mask=inside, other=0.0).to(tl.float32)
    if gelu:
        x *= _share(x)
    out = rounded(x, scale, low, low + top) * scale
    if drops:
        out = tl.where(kept(drawn_at, line, rows, share), x, out)
    tl.store(out_at + (line[:, None] * columns + column[None, :]), out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad_at: tl.tensor,
    x_at: tl.tensor,
    grad_x_at: tl.tensor,
    sums_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    drawn_at: tl.tensor,
    share: tl.tensor,
    top: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    inner: tl.tensor,
    middle: tl.tensor,
    outer_stride: tl.tensor,
    middle_stride: tl.tensor,
    inner_stride: tl.tensor,
    rounds: tl.tensor,
    gelu: tl.constexpr,
    drops: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = lowest(offset_at)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    of_scale = tl.zeros((tall, wide), tl.float32)
    of_offset = tl.zeros((tall, wide), tl.float32)
    for turn in range(rounds):
        line = (tl.program_id(0).to(tl.int64) * rounds + turn) * tall + tl.arange(0, tall)
        inside = (line < rows)[:, None] & (column < columns)[None, :]
        place = line[:, None] * columns + column[None, :]
        start = _starts(line, inner, middle, outer_stride, middle_stride, inner_stride)
        raw = tl.load(x_at + (start[:, None] + column[None, :]), mask=inside, other=0.0).to(tl.float32)
        x = raw
        if gelu:
            x = raw * _share(raw)
        grad = tl.load(grad_at + place, mask=inside, other=0.0).to(tl.float32)
        keep = (line < 0)[:, None]
        if drops:
            keep = kept(drawn_at, line, rows, share)
        out = rounded(x, scale, low, low + top) * scale
        passed, scale_part, offset_part = pulled(x, grad, out, scale, keep)
        of_scale += scale_part
        of_offset += offset_part
        if gelu:
            passed *= _share(raw) + raw * (_NORMAL * tl.exp(-0.5 * raw * raw))
        tl.store(grad_x_at + place, passed.to(grad_x_at.dtype.element_ty), mask=inside)
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums_at + 2 * program, tl.sum(tl.sum(of_scale, 1), 0))
    tl.store(sums_at + 2 * program + 1, tl.sum(tl.sum(of_offset, 1), 0))


@triton.jit
def _finish(
    sums_at: tl.tensor,
    scale_at: tl.tensor,
    grad_scale_at: tl.tensor,
    grad_offset_at: tl.tensor,
    count: tl.tensor,
    block: tl.constexpr,
) -> None:
    of_scale = tl.zeros((block,), tl.float32)
    of_offset = tl.zeros((block,), tl.float32)
    for first in range(0, count, block):
        place = first + tl.arange(0, block)
        of_scale += tl.load(sums_at + 2 * place, mask=place < count, other=0.0)
        of_offset += tl.load(sums_at + 2 * place + 1, mask=place < count, other=0.0)
    scale = tl.load(scale_at).to(tl.float32)
    tl.store(grad_scale_at, tl.div_rn(tl.sum(of_scale, 0), scale))
    tl.store(grad_offset_at, tl.sum(of_offset, 0) * scale)


def gradients_of(sums: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Of scale and offset, from each program's sums (programs, 2) of what `pulled` adds to them."""
    found = torch.empty_like(scale, dtype=torch.float32), torch.empty_like(offset, dtype=torch.float32)
    _finish[(1,)](sums, scale, *found, len(sums), block=PROGRAMS)
    return found


def _strides(x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """x, or a copy of it where its rows have gaps, and its sizes and strides as kernels find rows with them."""
    if x.is_contiguous() or x.ndim > 4 or x.stride(-1) != 1:
        return x.contiguous(), (1, 1, x.shape[-1] if x.ndim else 1, 0, 0)
    more = (0,) * (4 - x.ndim)
    sizes, strides = (*more, *x.shape), (*more, *x.stride())
    return x, (max(1, sizes[2]), max(1, sizes[1]), *strides[:3])


def quantize_dequantize(x: Tensor, scale: Tensor, offset: Tensor, top: int) -> Tensor:
    """`scale * clamp(round(x / scale), low, low + top)` with low = -round(offset), without gradients, in x's type.

    scale, offset: without dimensions.
    """
    found, strides = _strides(x)
    return _quantized(found, strides, scale, offset, top, None, 0.0, False, x.dtype)


def _quantized(
    x: Tensor,
    strides: tuple[int, ...],
    scale: Tensor,
    offset: Tensor,
    top: int,
    drawn: Tensor | None,
    share: float,
    gelu: bool,
    dtype: torch.dtype,
) -> Tensor:
    out, tiles = torch.empty(x.shape, dtype=dtype, device=x.device), Tiles.of(x.shape)
    numbers = share, float(top), tiles.rows, tiles.columns, *strides
    _forward[tiles.grid](x, out, scale, offset, drawn, *numbers, gelu, drawn is not None, **tiles.form)
    return out


class FakeQuantize(torch.autograd.Function):
    """`quantize_dequantize` with gradients: to x straight through the rounding, to scale and offset as in LSQ.

    drawn: (..., 1), numbers from 0 to 1, or None; rows of x whose number is below `share` stay as they are. gelu: x
    passes one first. The result has the type that a product reads.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor,
        top: int,
        drawn: Tensor | None = None,
        share: float = 0.0,
        gelu: bool = False,
    ) -> Tensor:
        x, ctx.strides = _strides(x)
        ctx.save_for_backward(x, scale, offset, drawn)
        ctx.top, ctx.share, ctx.gelu = top, share, gelu
        return _quantized(x, ctx.strides, scale, offset, top, drawn, share, gelu, read_by_products(x))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        x, scale, offset, drawn = ctx.saved_tensors
        grad_x, tiles = torch.empty(x.shape, dtype=x.dtype, device=x.device), Tiles.of(x.shape)
        programs, rounds = tiles.shared
        sums = torch.empty(math.prod(programs), 2, device=x.device)
        numbers = ctx.share, float(ctx.top), tiles.rows, tiles.columns, *ctx.strides, rounds
        _backward[programs](
            grad, x, grad_x, sums, scale, offset, drawn, *numbers, ctx.gelu, drawn is not None, **tiles.form
        )
        of_scale, of_offset = gradients_of(sums, scale, offset)
        return grad_x, of_scale, of_offset if ctx.needs_input_grad[2] else None, None, None, None, None
