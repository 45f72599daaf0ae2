"""q, k and v balanced head by head.

q_c·a_c and k_c/a_c leave q·k alone; v_c/f_c is undone in the columns of the output projection. A constant added to all
keys drops out of the softmax, so keys are centred; one added to all values passes through, because attention rows sum
to one, and moves to the projection's bias. Quantized rows do not: among hundreds of tokens most weights are smaller
than half a step, and a tenth of a row and more is rounded away. What is lost of centred values is less.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.channels import (
    LARGEST_FACTOR,
    ChannelStats,
    equalising_factors,
    measure_channels,
)
from fimaq_deploy.calibration.rewrites.linear import absorb_shift, bias_of, qkv_rows, scale_columns, scale_rows
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.roles import Heads

VALUE_STRENGTH = 0.5
CENTRE_VALUES = False


@torch.no_grad()
def balance_heads(
    model: nn.Module,
    images: Tensor,
    *,
    value_strength: float = VALUE_STRENGTH,
    centre_values: bool = CENTRE_VALUES,
) -> list[str]:
    """Centre the keys, give q and k equal reach channel by channel, and equalise the channels of v.

    value_strength: 1 gives all channels of v one reach, 0 leaves them alone. centre_values: also subtract v's means.

    q and k stay as they are where they are normalised afterwards, v where the attention output is. Returns the names of
    the attention modules that changed.
    """
    found = list(family_of(model).heads(model))
    measured = measure_channels(model, images, {heads.name: heads.qkv for heads in found})
    changed = []
    for heads in found:
        if heads.plain_scores:
            _balance_scores(heads, measured[heads.name])
        if heads.plain_values:
            # A gate multiplies channel by channel: factors pass it, shifts do not.
            _balance_values(heads, measured[heads.name], value_strength, centre_values and not heads.gated)
        if heads.plain_scores or heads.plain_values:
            changed.append(heads.name)
    return changed


def _balance_scores(heads: Heads, stats: ChannelStats) -> None:
    q_rows, k_rows, _ = qkv_rows(heads.qkv)
    q, k = stats.part(q_rows), stats.part(k_rows)
    bias_of(heads.qkv)[k_rows] -= k.mean.to(heads.qkv.weight)
    ratio = k.reach(k.mean).clamp(min=1e-12) / q.reach().clamp(min=1e-12)
    factors = ratio.sqrt().clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    scale_rows(heads.qkv, q_rows, factors)
    scale_rows(heads.qkv, k_rows, 1 / factors)


def _balance_values(heads: Heads, stats: ChannelStats, strength: float, centre: bool) -> None:
    rows = qkv_rows(heads.qkv)[2]
    v = stats.part(rows)
    if centre:
        _centre_values(heads, v.mean)
    factors = equalising_factors(v.reach(v.mean if centre else None), strength)
    scale_rows(heads.qkv, rows, 1 / factors)
    scale_columns(heads.proj, factors)


@torch.no_grad()
def centre_values(model: nn.Module, images: Tensor) -> list[str]:
    """Move the mean of v, channel by channel, into the bias of the output projection.

    images: float32 (N, C, H, W) to measure means on. Left alone is what is gated or normalised behind the attention.
    Returns the names of the attention modules that changed.
    """
    found = [heads for heads in family_of(model).heads(model) if heads.plain_values and not heads.gated]
    measured = measure_channels(model, images, {heads.name: heads.qkv for heads in found})
    for heads in found:
        _centre_values(heads, measured[heads.name].part(qkv_rows(heads.qkv)[2]).mean)
    return [heads.name for heads in found]


def _centre_values(heads: Heads, mean: Tensor) -> None:
    bias_of(heads.qkv)[qkv_rows(heads.qkv)[2]] -= mean.to(heads.qkv.weight)
    absorb_shift(heads.proj, mean)
