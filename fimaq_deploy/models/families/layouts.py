"""Rows of projections in another order or shared by several heads: the same numbers, where the engine wants them.

Rotary positions turn pairs of channels. Where a model pairs neighbours, its q and k are put in the order of halves, in
which a turn is two slices instead of a gather of every second channel; q·kᵀ does not see the order.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.models.families.parts import joined


def halves(size: int) -> Tensor:
    """The order of channels that puts the first of each pair of neighbours in front of all the second ones."""
    return torch.cat((torch.arange(0, size, 2), torch.arange(1, size, 2)))


@torch.no_grad()
def in_halves(
    qkv: nn.Linear, heads: int, norms: tuple[nn.Module, nn.Module]
) -> tuple[nn.Linear, tuple[nn.Module, nn.Module]]:
    """A projection whose q and k have the order of halves in every head, and their norms with it."""
    size = qkv.out_features // (3 * heads)
    order = halves(size)
    rows = (torch.arange(2 * heads)[:, None] * size + order).flatten()
    rows = torch.cat((rows, torch.arange(2 * heads * size, qkv.out_features)))
    return reordered(qkv, rows), (_norm_in(norms[0], order), _norm_in(norms[1], order))


@torch.no_grad()
def reordered(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """A Linear with these rows of another one."""
    made = copy.copy(joined(layer))
    for name in ("weight", "bias"):
        own = getattr(made, name)
        if own is not None:
            setattr(made, name, nn.Parameter(own[rows.to(own.device)], False))
    made.out_features = len(rows)
    return made


def swapped_halves(layer: nn.Linear) -> nn.Linear:
    """A Linear with its second half of rows first."""
    half = layer.out_features // 2
    return reordered(layer, torch.cat((torch.arange(half, layer.out_features), torch.arange(half))))


def grouped_rows(layer: nn.Linear, heads: int, groups: int) -> nn.Linear:
    """A projection of few heads with each head once for every one of the `groups` that share it."""
    size = layer.out_features // heads
    rows = torch.arange(layer.out_features).view(heads, 1, size).expand(heads, groups, size).flatten()
    return layer if groups == 1 else reordered(layer, rows)


def _norm_in(norm: Any, order: Tensor) -> nn.Module:
    made = copy.deepcopy(norm)
    for name in ("weight", "bias"):
        own = getattr(made, name, None)
        if own is not None:
            setattr(made, name, nn.Parameter(own[order.to(own.device)].detach(), False))
    return made
