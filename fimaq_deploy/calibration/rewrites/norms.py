"""Norm outputs with one range for all channels.

RepQ-ViT (arXiv 2212.08254) and SmoothQuant (arXiv 2211.10438); the formulas are our own. Channel c of a norm's output
is shifted by its centre m_c and divided by f_c = (range_c / geometric mean of the ranges)^strength; the Linear that
reads it multiplies its input columns by f_c and adds W m to its bias. One scale then serves all channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.channels import ChannelStats, equalising_factors, measure_channels
from fimaq_deploy.calibration.rewrites.linear import absorb_shift, scale_columns
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.roles import NormReaders, is_norm

NORM_STRENGTH = 0.5


@torch.no_grad()
def fold_norm_ranges(
    model: nn.Module, images: Tensor, strength: float = NORM_STRENGTH, *, shift: bool = True
) -> list[str]:
    """Equalise the channels of every norm output that only Linear layers read; returns the names of those norms.

    strength: 1 gives all channels one range (RepQ-ViT), 0.5 half of that in logarithms (SmoothQuant), 0 only shifts.
    shift: also centre the channels. Linears without a bias (Swin's `reduction`) get one for it. RMS norms only scale,
        having no bias, and so does Swin's norm1 where windows are padded.

    A norm without affine parameters gets the ones that it needs, which its ONNX operator has anyway.
    """
    readers = [reader for reader in family_of(model).norms(model) if is_norm(reader.norm)]
    measured = measure_channels(model, images, {reader.name: reader.norm for reader in readers})
    for reader in readers:
        _fold_norm(reader, measured[reader.name], strength, shift)
    return [reader.name for reader in readers]


def _fold_norm(reader: NormReaders, stats: ChannelStats, strength: float, shift: bool) -> None:
    norm = reader.norm
    shifts = shift and reader.can_shift and isinstance(norm, nn.LayerNorm)
    centre = stats.middle if shifts else torch.zeros_like(stats.low)
    factors = equalising_factors(stats.reach(centre), strength)
    _make_affine(norm, reader.linears[0].weight[0], shifts)
    norm.weight.div_(factors.to(norm.weight))
    if getattr(norm, "bias", None) is not None:
        norm.bias.copy_((norm.bias.double() - centre) / factors)
    for linear in reader.linears:
        if shifts:
            absorb_shift(linear, centre)
        scale_columns(linear, factors)


def _make_affine(norm: Any, like: Tensor, with_bias: bool) -> None:
    """Give a norm the neutral parameters that it lacks."""
    if norm.weight is None:
        norm.weight = nn.Parameter(torch.ones_like(like), like.requires_grad)
    if with_bias and norm.bias is None:
        norm.bias = nn.Parameter(torch.zeros_like(like), like.requires_grad)
