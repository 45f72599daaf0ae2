"""The learned scales of several quantizers made in one go.

A scale is learned as a logarithm and used short (`grid`), which takes a dozen operators on a number or a few. A block
has a dozen quantizers, so on their own they launch more kernels for their scales than for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fimaq_deploy.calibration.quantizers.fake_quant import (
    ActivationQuantizer,
    ShortScale,
    WeightQuantizer,
    steps_of_significand,
)


class SharedScales:
    """Of the quantizers among some that learn their scales; the numbers are those that each would make by itself."""

    def __init__(self, quantizers: Sequence[ActivationQuantizer | WeightQuantizer]) -> None:
        self._quantizers = [(each, each.log_scale) for each in quantizers if each.log_scale is not None]
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
        logs = torch.cat([log_scale.view(-1) for _, log_scale in self._quantizers])
        parts = ShortScale.apply(logs.exp(), self._steps).split(self._sizes)
        for (quantizer, log_scale), part in zip(self._quantizers, parts, strict=True):
            quantizer.short_scale = part.view(log_scale.shape)
