"""What a deviation from the full-precision output costs: forward and backward.

Written in torch's operators, a minibatch's loss gathers the rows of its images, subtracts, and goes over the deviation
about thirty times. Here the forward pass reads the output and the rows, and the backward pass reads both again and
writes the gradient of the output: the deviation is never stored. Sums are made in a fixed order: over a block of an
image's numbers by one program, then over blocks, then over images.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_IMAGES = 4  # of a program, which reads the factor once for all of them
_BLOCK = 512  # numbers of each image of a program
_COLUMNS = 8  # of the factor, at most, that are written out one after another; more of them take a loop
_SUMS = 1024  # that are added up at a time


# A part of the cost is weight * (mean over images) / start: what it is measured with, its start and its weight. The
# low-rank part has the factor (a, k), the diagonal part mean |g|, (a,), or None for ones. A start has no dimensions;
# None stands for one.
Part = tuple[Tensor | None, Tensor | None, float]
PLAIN: Part = None, None, 1.0


@triton.jit
def _deviation(
    output_at: tl.tensor,
    rows_at: tl.tensor,
    index_at: tl.tensor,
    image: tl.tensor,
    place: tl.tensor,
    there: tl.tensor,
    inside: tl.tensor,
    size: tl.tensor,
) -> tl.tensor:
    """(images, block), zero where there is no image or no number."""
    row = image
    if index_at is not None:
        row = tl.load(index_at + image, mask=there, other=0)
    both = there[:, None] & inside[None, :]
    output = tl.load(output_at + (image * size)[:, None] + place[None, :], mask=both, other=0.0)
    z = tl.load(rows_at + (row * size)[:, None] + place[None, :], mask=both, other=0.0)
    return output.to(tl.float32) - z.to(tl.float32)


@triton.jit
def _has(columns: tl.constexpr, number: tl.tensor, lanes: tl.constexpr) -> tl.tensor:
    """Whether the factor has this column, as a mask: a plain truth value is not one in every interpreter."""
    return tl.zeros((lanes,), tl.int32) + number < columns


@triton.jit
def _forward(
    output_at: tl.tensor,
    rows_at: tl.tensor,
    index_at: tl.tensor,
    factor_at: tl.tensor,
    curvature_at: tl.tensor,
    sums_at: tl.tensor,
    count: tl.tensor,
    size: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    columns: tl.constexpr,
    together: tl.constexpr,
    squares: tl.constexpr,
    images: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(1).to(tl.int64) * images + tl.arange(0, images)
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there, inside = image < count, place < size
    d = _deviation(output_at, rows_at, index_at, image, place, there, inside, size)
    blocks = tl.num_programs(0)
    sums_at += image * blocks + tl.program_id(0)
    if columns > 0:
        steps = tl.abs(d)
        column_at = factor_at + place * down
        # Each column is on its way while the one before is summed up.
        coming = tl.load(column_at, mask=inside, other=0.0)
        for first in range(0, columns, together):
            for step in tl.static_range(together):
                number = first + step
                column = coming
                following = inside & _has(columns, number + 1, block)
                coming = tl.load(column_at + (number + 1) * across, mask=following, other=0.0)
                found = tl.sum(steps * column[None, :], 1)
                tl.store(sums_at + number * count * blocks, found, mask=there & _has(columns, number, images))
    if squares:
        square = d * d
        if curvature_at is not None:
            square *= tl.load(curvature_at + place, mask=inside, other=0.0).to(tl.float32)[None, :]
        tl.store(sums_at + columns * count * blocks, tl.sum(square, 1), mask=there)


@triton.jit
def _mean(total: tl.tensor, count: tl.tensor) -> tl.tensor:
    return tl.div_rn(total, tl.full((), count, tl.float32))


@triton.jit
def _share(weight: tl.tensor, start_at: tl.tensor) -> tl.tensor:
    share = weight
    if start_at is not None:
        share = tl.div_rn(weight, tl.load(start_at))
    return share


@triton.jit
def _value(
    sums_at: tl.tensor,
    low_start_at: tl.tensor,
    square_start_at: tl.tensor,
    value_at: tl.tensor,
    low_weight: tl.tensor,
    square_weight: tl.tensor,
    count: tl.tensor,
    columns: tl.constexpr,
    squares: tl.constexpr,
    block: tl.constexpr,
) -> None:
    value = 0.0
    if columns > 0:
        total = tl.zeros((block,), tl.float32)
        for first in range(0, columns * count, block):
            place = first + tl.arange(0, block)
            found = tl.load(sums_at + place, mask=place < columns * count, other=0.0)
            total += found * found
        value += _share(low_weight, low_start_at) * _mean(tl.sum(total, 0), count)
    if squares:
        total = tl.zeros((block,), tl.float32)
        for first in range(0, count, block):
            place = first + tl.arange(0, block)
            total += tl.load(sums_at + columns * count + place, mask=place < count, other=0.0)
        value += _share(square_weight, square_start_at) * _mean(tl.sum(total, 0), count)
    tl.store(value_at, value)


@triton.jit
def _backward(
    grad_at: tl.tensor,
    output_at: tl.tensor,
    rows_at: tl.tensor,
    index_at: tl.tensor,
    factor_at: tl.tensor,
    curvature_at: tl.tensor,
    sums_at: tl.tensor,
    low_start_at: tl.tensor,
    square_start_at: tl.tensor,
    grad_output_at: tl.tensor,
    low_weight: tl.tensor,
    square_weight: tl.tensor,
    count: tl.tensor,
    size: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    columns: tl.constexpr,
    together: tl.constexpr,
    squares: tl.constexpr,
    images: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(1).to(tl.int64) * images + tl.arange(0, images)
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there, inside = image < count, place < size
    d = _deviation(output_at, rows_at, index_at, image, place, there, inside, size)
    grad = tl.load(grad_at).to(tl.float32)
    slope = tl.zeros((images, block), tl.float32)
    if columns > 0:
        each = _mean(grad * _share(low_weight, low_start_at), count)
        for first in range(0, columns, together):
            for step in tl.static_range(together):
                number = first + step
                within, known = inside & _has(columns, number, block), there & _has(columns, number, images)
                column = tl.load(factor_at + place * down + number * across, mask=within, other=0.0)
                found = tl.load(sums_at + number * count + image, mask=known, other=0.0)
                slope += (each * (2 * found))[:, None] * column[None, :]
        slope = tl.where(d > 0, slope, tl.where(d < 0, -slope, 0.0))
    if squares:
        bend = tl.zeros((block,), tl.float32) + _mean(grad * _share(square_weight, square_start_at), count)
        if curvature_at is not None:
            bend *= tl.load(curvature_at + place, mask=inside, other=0.0).to(tl.float32)
        slope += bend[None, :] * (2 * d)
    at = grad_output_at + (image * size)[:, None] + place[None, :]
    tl.store(at, slope.to(grad_output_at.dtype.element_ty), mask=there[:, None] & inside[None, :])


class _Cost(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, rows: Tensor, index: Tensor | None, low_rank: Part | None, diagonal: Part | None
    ) -> Tensor:
        output, count, size = output.contiguous(), len(output), output[0].numel()
        factor, low_start, low_weight = low_rank or PLAIN
        curvature, square_start, square_weight = diagonal or PLAIN
        columns = 0 if factor is None else factor.shape[1]
        strides = (0, 0) if factor is None else factor.stride()
        ctx.grid = triton.cdiv(size, _BLOCK), triton.cdiv(count, _IMAGES)
        ctx.read, ctx.starts = (rows, index, factor, curvature), (low_start, square_start)
        ctx.weights = low_weight, square_weight
        ctx.shape = count, size, *strides, columns, min(max(columns, 1), _COLUMNS), diagonal is not None
        sums = torch.empty(columns + (diagonal is not None), count, ctx.grid[0], device=output.device)
        _forward[ctx.grid](output, *ctx.read, sums, *ctx.shape, images=_IMAGES, block=_BLOCK)
        sums, value = sums.sum(2), torch.empty((), device=output.device)
        shape = count, columns, diagonal is not None
        _value[(1,)](sums, *ctx.starts, value, *ctx.weights, *shape, block=_SUMS)
        ctx.save_for_backward(output, sums)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        output, sums = ctx.saved_tensors
        grad_output = torch.empty_like(output)
        read = grads[0], output, *ctx.read, sums, *ctx.starts
        _backward[ctx.grid](*read, grad_output, *ctx.weights, *ctx.shape, images=_IMAGES, block=_BLOCK)
        return grad_output, None, None, None, None


def cost(
    output: Tensor, rows: Tensor, index: Tensor | None, *, low_rank: Part | None = None, diagonal: Part | None = None
) -> Tensor:
    """`fisher.low_rank` and `fisher.diagonal` of the deviation, each times its weight over its start, added up.

    output: (B, ...). rows: what it deviates from, in one piece; row index[b] belongs to output b, or row b without an
    index. The gradient goes to the output.
    """
    if rows.shape[1:] != output.shape[1:] or len(output) != len(rows if index is None else index):
        raise ValueError(f"outputs {tuple(output.shape)} do not deviate from rows {tuple(rows.shape)}")
    value: Tensor = _Cost.apply(output, rows.contiguous(), index, low_rank, diagonal)
    return value
