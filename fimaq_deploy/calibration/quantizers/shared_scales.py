"""The learned scales of several quantizers made in one go.

A scale is learned as a logarithm and used short (`grid`), which takes a dozen operators on a number or a few. A block
has a dozen quantizers, so on their own they launch more kernels for their scales than for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.fake_quant import (
    ActivationQuantizer,
    ShortScale,
    WeightQuantizer,
    steps_of_significand,
)


class _Scales(torch.autograd.Function):
    """Short scales of logarithms, of each in its shape; gradients as if nothing were made short.

    steps: `steps_of_significand` for every scale of all of them together; sizes: how many each has; flat: the
    logarithms as vectors, in the same memory.
    """

    @staticmethod
    def forward(ctx: Any, steps: Tensor, sizes: list[int], flat: list[Tensor], *logs: Tensor) -> tuple[Tensor, ...]:
        exact = torch.cat(flat).exp_()
        ctx.save_for_backward(exact)
        ctx.sizes, ctx.shapes = sizes, [each.shape for each in logs]
        return _shaped(ShortScale.apply(exact, steps), sizes, ctx.shapes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (exact,) = ctx.saved_tensors
        of_logs = torch.cat([each.reshape(-1) for each in grads]).mul_(exact)
        return None, None, None, *_shaped(of_logs, ctx.sizes, ctx.shapes)


def _shaped(flat: Tensor, sizes: list[int], shapes: list[torch.Size]) -> tuple[Tensor, ...]:
    return tuple(part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True))


class SharedScales:
    """Of the quantizers among some that learn their scales; the numbers are those that each would make by itself."""

    def __init__(self, quantizers: Sequence[ActivationQuantizer | WeightQuantizer]) -> None:
        self._quantizers = [(each, each.log_scale) for each in quantizers if each.log_scale is not None]
        self._logs = [log_scale for _, log_scale in self._quantizers]
        self._flat = [log_scale.detach().view(-1) for log_scale in self._logs]
        self._sizes = [log_scale.numel() for _, log_scale in self._quantizers]
        steps = [
            torch.full((log_scale.numel(),), steps_of_significand(each.scale_digits), device=log_scale.device)
            for each, log_scale in self._quantizers
        ]
        self._steps = torch.cat(steps) if steps else None

    def make(self) -> None:
        """Hand every quantizer its scale, for the passes until the next step."""
        if self._steps is None:
            return
        made = _Scales.apply(self._steps, self._sizes, self._flat, *self._logs)
        for (quantizer, _), scale in zip(self._quantizers, made, strict=True):
            quantizer.short_scale = scale
