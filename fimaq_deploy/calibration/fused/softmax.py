"""Attention's weights as the second product reads them: a softmax and the fake quantization of what it returns.

In torch's operators the scores are scaled, normalised and quantized by a kernel each, forward and backward, and both of
the latter two are kept. Here each way is one kernel that holds whole rows, and only the products of q and k are kept.
The numbers are torch's but for the last digits of the exponential and of sums.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fimaq_deploy.calibration.fused.fake_quantize import gradients_of, kept, lowest, pulled, rounded
from fimaq_deploy.calibration.fused.tiles import Tiles, read_by_products

LONGEST = 8192  # numbers in a row: one program holds all of them


@triton.jit
def _weights(
    scores_at: tl.tensor,
    where: tl.tensor,
    inside: tl.tensor,
    column: tl.tensor,
    columns: tl.tensor,
    factor: tl.tensor,
) -> tl.tensor:
    """The softmax of rows, (rows, columns); 0 in columns that a row does not have."""
    scores = tl.load(scores_at + where, mask=inside, other=0.0).to(tl.float32) * factor
    scores = tl.where((column < columns)[None, :], scores, float("-inf"))
    raised = tl.exp(scores - tl.max(scores, 1)[:, None])
    return tl.div_rn(raised, tl.sum(raised, 1)[:, None] + tl.zeros_like(raised))


@triton.jit
def _forward(
    scores_at: tl.tensor,
    out_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    drawn_at: tl.tensor,
    share: tl.tensor,
    factor: tl.tensor,
    top: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    drops: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = lowest(offset_at)
    line = tl.program_id(0).to(tl.int64) * tall + tl.arange(0, tall)
    column = tl.arange(0, wide)
    where = line[:, None] * columns + column[None, :]
    inside = (line < rows)[:, None] & (column < columns)[None, :]
    x = _weights(scores_at, where, inside, column, columns, factor)
    out = rounded(x, scale, low, low + top) * scale
    if drops:
        out = tl.where(kept(drawn_at, line, rows, share), x, out)
    tl.store(out_at + where, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad_at: tl.tensor,
    scores_at: tl.tensor,
    grad_scores_at: tl.tensor,
    sums_at: tl.tensor,
    scale_at: tl.tensor,
    offset_at: tl.tensor,
    drawn_at: tl.tensor,
    share: tl.tensor,
    factor: tl.tensor,
    top: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    rounds: tl.tensor,
    drops: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    scale = tl.load(scale_at).to(tl.float32)
    low = lowest(offset_at)
    column = tl.arange(0, wide)
    of_scale = tl.zeros((tall,), tl.float32)
    of_offset = tl.zeros((tall,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * rounds
    for turn in range(rounds):
        line = (first + turn) * tall + tl.arange(0, tall)
        where = line[:, None] * columns + column[None, :]
        inside = (line < rows)[:, None] & (column < columns)[None, :]
        x = _weights(scores_at, where, inside, column, columns, factor)
        grad = tl.load(grad_at + where, mask=inside, other=0.0).to(tl.float32)
        keep = (line < 0)[:, None]
        if drops:
            keep = kept(drawn_at, line, rows, share)
        out = rounded(x, scale, low, low + top) * scale
        passed, scale_part, offset_part = pulled(x, grad, out, scale, keep)
        of_scale += tl.sum(scale_part, 1)
        of_offset += tl.sum(offset_part, 1)
        of_scores = x * (passed - tl.sum(passed * x, 1)[:, None]) * factor
        tl.store(grad_scores_at + where, of_scores.to(grad_scores_at.dtype.element_ty), mask=inside)
    tl.store(sums_at + 2 * tl.program_id(0), tl.sum(of_scale, 0))
    tl.store(sums_at + 2 * tl.program_id(0) + 1, tl.sum(of_offset, 0))


class QuantizedSoftmax(torch.autograd.Function):
    """The fake quantization of softmax(scores · factor) over the last axis, of up to `LONGEST` numbers.

    Gradients go to the scores, to scale and to offset, as of `fake_quantize.FakeQuantize`, which explains the others.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        factor: float,
        scale: Tensor,
        offset: Tensor,
        top: int,
        drawn: Tensor | None = None,
        share: float = 0.0,
    ) -> Tensor:
        scores = scores.contiguous()
        tiles = Tiles.of(scores.shape, LONGEST)
        ctx.numbers = share, factor, float(top), tiles.rows, tiles.columns
        ctx.save_for_backward(scores, scale, offset, drawn)
        out = torch.empty_like(scores, dtype=read_by_products(scores))
        _forward[tiles.grid](scores, out, scale, offset, drawn, *ctx.numbers, drawn is not None, **tiles.form)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        scores, scale, offset, drawn = ctx.saved_tensors
        grad_scores, tiles = torch.empty_like(scores), Tiles.of(scores.shape, LONGEST)
        programs, rounds = tiles.shared
        sums = torch.empty(programs[0], 2, device=scores.device)
        numbers = *ctx.numbers, rounds, drawn is not None
        _backward[programs](grad, scores, grad_scores, sums, scale, offset, drawn, *numbers, **tiles.form)
        of_scale, of_offset = gradients_of(sums, scale, offset)
        return grad_scores, None, of_scale, of_offset if ctx.needs_input_grad[3] else None, None, None, None
