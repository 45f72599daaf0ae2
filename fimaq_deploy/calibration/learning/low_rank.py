"""FIMA-Q's low-rank part as a step that is recorded on the host computes it: its factor grows with each measurement."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fimaq_deploy.calibration.recording import node


class Held(Protocol):
    """Tensors by number, looked up anew each time."""

    def __getitem__(self, number: int) -> Tensor: ...


class _Projected:
    """|d| times the factor, whose shape changes with each measurement: no tensor of a recorded step."""

    projected: Tensor


class LowRank(torch.autograd.Function):
    """`fisher.low_rank(d, held[0])` and its gradient, each one call of a recorded step; the same numbers."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, held: Held) -> Tensor:
        ctx.held, ctx.kept = held, _Projected()
        ctx.save_for_backward(d)
        return _value(d, held, ctx.kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (d,) = ctx.saved_tensors
        return _gradient(grads[0], d, ctx.kept, ctx.held), None


@node
def _value(d: Tensor, held: Held, kept: _Projected) -> Tensor:
    """kept: takes what the gradient needs."""
    kept.projected = d.abs() @ held[0]
    return kept.projected.square().sum(1).mean()


@node
def _gradient(grad: Tensor, d: Tensor, kept: _Projected, held: Held) -> Tensor:
    return ((grad / len(d)) * (kept.projected * 2)) @ held[0].t() * d.sgn()
