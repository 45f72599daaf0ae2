"""The input of a minibatch, whose rows come from one of two stored tensors: QDrop's mix of both boundaries.

Of each row only the one that is taken is read, from where it is stored, and written.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fimaq_deploy.calibration.fused.tiles import Tiles
from fimaq_deploy.calibration.quantizers.fake_quant import rows_drawn

Source = tuple[Tensor, Tensor | None]  # `Rows.source`: the images' rows and which of them to take, or just those


@triton.jit
def _first(images_at: tl.tensor, image: tl.tensor, inside: tl.tensor, chosen: tl.constexpr) -> tl.tensor:
    """The number of an image of the minibatch where it is stored."""
    if chosen:
        image = tl.load(images_at + image, mask=inside, other=0).to(tl.int64)
    return image


@triton.jit
def _mix(
    quantized_at: tl.tensor,
    exact_at: tl.tensor,
    of_quantized_at: tl.tensor,
    of_exact_at: tl.tensor,
    drawn_at: tl.tensor,
    out_at: tl.tensor,
    share: tl.tensor,
    rows: tl.tensor,
    rows_each: tl.tensor,
    columns: tl.tensor,
    quantized_chosen: tl.constexpr,
    exact_chosen: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * tall + tl.arange(0, tall)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    there = row < rows
    image, line = row // rows_each, row % rows_each
    exact = tl.load(drawn_at + row, mask=there, other=1.0) < share
    of_quantized = (_first(of_quantized_at, image, there, quantized_chosen) * rows_each + line) * columns
    of_exact = (_first(of_exact_at, image, there, exact_chosen) * rows_each + line) * columns
    inside, exact = there[:, None] & (column < columns)[None, :], exact[:, None]
    rough = tl.load(quantized_at + of_quantized[:, None] + column[None, :], mask=inside & (exact == 0), other=0.0)
    fine = tl.load(exact_at + of_exact[:, None] + column[None, :], mask=inside & exact, other=0.0)
    tl.store(out_at + (row * columns)[:, None] + column[None, :], tl.where(exact, fine, rough), mask=inside)


def mixed(quantized: Source, exact: Source, share: float) -> Tensor:
    """Rows of `quantized`, but about so large a share of them from `exact`, as `rows_kept` draws them. No gradients.

    Both hold (..., rows, columns) for each image and lie in order in memory.
    """
    (rough, of_rough), (fine, of_fine) = quantized, exact
    count = len(rough) if of_rough is None else len(of_rough)
    out = torch.empty((count, *rough.shape[1:]), dtype=rough.dtype, device=rough.device)
    drawn = rows_drawn(out)
    tiles = Tiles.of(out.shape)
    sizes = tiles.rows, math.prod(out.shape[1:-1]), tiles.columns, of_rough is not None, of_fine is not None
    tensors = rough.contiguous(), fine.contiguous(), of_rough, of_fine, drawn, out
    _mix[tiles.grid](*tensors, share, *sizes, **tiles.form)
    return out
