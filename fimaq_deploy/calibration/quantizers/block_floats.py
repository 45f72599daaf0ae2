"""NVFP4: 4-bit floats in blocks, whose scales are 8-bit floats times one number for the whole tensor.

Weights learn as on other grids of floats, and the scales of their blocks with them. Those of activations are made of
each block's largest value while the model runs; calibration sets the number for the tensor only, a power of two that
lets the largest block have the largest scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.float_quant import FloatActivationQuantizer, FloatWeightQuantizer
from fimaq_deploy.calibration.quantizers.grid import FloatActivationGrid
from fimaq_deploy.calibration.quantizers.nearest import nearest
from fimaq_deploy.calibration.quantizers.ops import steps_nvfp4
from fimaq_deploy.target.numbers import E2M1, E4M3

_LEAST = E4M3.values[1]


def tensor_scale(scales: Tensor) -> Tensor:
    """The power of two that the scales of a tensor's blocks, up to E4M3's largest value, are multiplied with."""
    _, exponent = torch.frexp(scales.amax() / E4M3.largest)
    return torch.ldexp(torch.ones_like(scales.amax()), exponent).clamp(min=2.0**-24)


def block_scales(scales: Tensor, whole: Tensor) -> Tensor:
    """The scales of blocks as E4M3 stores them beside `tensor_scale`, above zero."""
    return nearest(scales / whole, E4M3).clamp(min=_LEAST)


def storable(scales: Tensor) -> Tensor:
    """The nearest scales that blocks can have."""
    whole = tensor_scale(scales)
    return block_scales(scales, whole) * whole


class _Storable(torch.autograd.Function):
    """`storable` with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, scales: Tensor) -> Tensor:
        return storable(scales)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class BlockActivationQuantizer(FloatActivationQuantizer):
    """Fake quantization to blocks of floats along the last axis. `scale` is the tensor's, which is not learned."""

    def __init__(self, grid: FloatActivationGrid, nonnegative: bool = False) -> None:
        super().__init__(grid, nonnegative)
        assert grid.block_size is not None
        self.block_size = grid.block_size

    @torch.no_grad()
    def learn(self, drop: float, lr: float) -> list[dict[str, Any]]:
        self.drop = drop
        return []

    def fit_bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        largest = torch.maximum(low.abs(), high.abs()) / E2M1.largest / E4M3.largest
        _, exponent = torch.frexp(largest)
        scale = torch.ldexp(torch.ones_like(largest), exponent).clamp(2.0**-20, 2.0**10)
        return scale, torch.zeros_like(scale)

    def steps(self, x: Tensor) -> Tensor:
        return steps_nvfp4(x, self.scale, self.block_size)[0]

    def on_grid(self, steps: Tensor, offset: Tensor) -> Tensor:
        """A search sees values without their blocks: the bounds that cover them all are the best."""
        return steps.clamp(-E2M1.largest * E4M3.largest, E2M1.largest * E4M3.largest)

    def _frozen(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.fimaq.quantize_dequantize_nvfp4(x, self.scale, self.block_size)
        return found

    def _learning(self, x: Tensor) -> Tensor:
        keep = self._rows_kept(x)
        quantized = _StraightThroughBlocks.apply(x, self.scale, self.block_size)
        return quantized if keep is None else torch.lerp(quantized, x, keep.to(x.dtype))


class _StraightThroughBlocks(torch.autograd.Function):
    """A block's scale covers it but for a rounding, so that every gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, block_size: int) -> Tensor:
        found: Tensor = torch.ops.fimaq.quantize_dequantize_nvfp4(x, scale, block_size)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class BlockWeightQuantizer(FloatWeightQuantizer):
    """Weights in blocks of floats; a scale that is learned is used as it can be stored."""

    def forward(self) -> Tensor:
        scale = self.scale if self.log_scale is None else self.log_scale.exp()
        found: Tensor = self.integers() * self.expand(_Storable.apply(scale))
        return found
