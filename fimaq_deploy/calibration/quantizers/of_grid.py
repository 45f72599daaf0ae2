"""From a grid to what computes on it: its quantizers, and what a search of scales asks of it."""

from __future__ import annotations

import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.block_floats import BlockActivationQuantizer, BlockWeightQuantizer, storable
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, WeightQuantizer, short_scale
from fimaq_deploy.calibration.quantizers.float_quant import (
    LEAST_SCALE,
    FloatActivationQuantizer,
    FloatWeightQuantizer,
    shrunken_floats,
)
from fimaq_deploy.calibration.quantizers.grid import (
    AnyActivationGrid,
    AnyWeightGrid,
    FloatActivationGrid,
    FloatWeightGrid,
)
from fimaq_deploy.calibration.quantizers.nearest import nearest


def activation_quantizer(grid: AnyActivationGrid | None, nonnegative: bool = False) -> ActivationQuantizer:
    """The quantizer of a grid; one without a grid is the identity."""
    if isinstance(grid, FloatActivationGrid):
        kind = BlockActivationQuantizer if grid.block_size else FloatActivationQuantizer
        return kind(grid, nonnegative)
    return ActivationQuantizer(grid, nonnegative)


def weight_quantizer(grid: AnyWeightGrid, outputs: int, inputs: int) -> WeightQuantizer:
    """The quantizer of a grid for a matrix [outputs, inputs]."""
    if isinstance(grid, FloatWeightGrid):
        kind = BlockWeightQuantizer if grid.block_size else FloatWeightQuantizer
        return kind(grid, outputs, inputs)  # type: ignore[arg-type]  # which has what it asks of a grid
    return WeightQuantizer(grid, outputs, inputs)


def on_grid(grid: AnyWeightGrid, steps: Tensor) -> Tensor:
    """Weights in units of their scale, which may be changed, to values of the grid."""
    if isinstance(grid, FloatWeightGrid):
        return nearest(steps, grid.values)
    return steps.round_().clamp_(grid.range.low, grid.range.high)


def widest_scale(grid: AnyWeightGrid, low: Tensor, high: Tensor) -> Tensor:
    """The scale that covers [low, high], elementwise, before it is made storable."""
    if isinstance(grid, FloatWeightGrid):
        least = 1e-8 if grid.block_size else LEAST_SCALE
        return (torch.maximum(low.abs(), high.abs()) / grid.values.largest).clamp(min=least)
    # The negative side has one more step: let it carry the larger tail.
    return torch.maximum(-low / -grid.range.low, high / grid.range.high).clamp(min=1e-8)


def shrunken(grid: AnyWeightGrid, candidates: int, device: torch.device) -> Tensor:
    """The multiples of the widest scale that are tried, the scale itself first."""
    if isinstance(grid, FloatWeightGrid):
        return shrunken_floats(candidates, device)
    return torch.linspace(1.0, 0.3, candidates, device=device)


def storable_scale(grid: AnyWeightGrid, scales: Tensor) -> Tensor:
    """Scales as they are stored, the next larger ones where they have few digits."""
    if isinstance(grid, FloatWeightGrid) and grid.block_size:
        return storable(scales)
    return short_scale(scales, grid.scale_digits, up=True)
