"""The arithmetic of a frozen quantized model, as six torch operators.

A quantized model computes through these and nothing else, so the exporter translates six operators and every runtime
sees the numbers that PyTorch saw. Rounding is half to even. Importing this module registers them as
`torch.ops.fimaq.*`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.quantizers.nearest import nearest
from fimaq_deploy.target.numbers import E2M1, E4M3, FORMATS


@torch.library.custom_op("fimaq::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """Per-tensor fake quantization: `scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point)`.

    `scale` has no dimensions. Zero point 0 with integers in [-128, 127] is an INT8 tensor, [0, 255] a UINT8 one.
    """
    if of(x.device).fuses:
        from fimaq_deploy.calibration.fused import fake_quantize as fused

        return fused.quantize_dequantize(x, scale, scale.new_full((), zero_point - low), high - low)
    return x.div(scale).round_().add_(zero_point).clamp_(low, high).sub_(zero_point).mul_(scale)


@torch.library.custom_op("fimaq::quantize_dequantize_float", mutates_args=())
def quantize_dequantize_float(x: Tensor, scale: Tensor, form: str) -> Tensor:
    """Per-tensor fake quantization to a floating-point format of `formats`, by name: `scale * nearest(x / scale)`."""
    return nearest(x.div(scale), FORMATS[form]).mul_(scale)


@torch.library.custom_op("fimaq::quantize_dequantize_nvfp4", mutates_args=())
def quantize_dequantize_nvfp4(x: Tensor, scale: Tensor, block_size: int) -> Tensor:
    """Fake quantization to E2M1 in blocks of the last axis, whose scales are E4M3 times `scale`, made of their largest.

    A block's scale s is `scale * nearest(max|x| / 6 / scale)` in E4M3, its values `s * nearest(x / s)` in E2M1; where s
    is 0, they are 0.
    """
    steps, own = steps_nvfp4(x, scale, block_size)
    return nearest(steps, E2M1).mul_(own).flatten(-2)


def steps_nvfp4(x: Tensor, scale: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Values in units of their block's scale, (..., blocks, block_size), and those scales, (..., blocks, 1)."""
    blocks = x.unflatten(-1, (-1, block_size))
    own = nearest(blocks.abs().amax(-1, keepdim=True).div_(E2M1.largest).div_(scale), E4M3).mul_(scale)
    return blocks / torch.where(own > 0, own, 1.0), own


@torch.library.custom_op("fimaq::dequantize_weight_nvfp4", mutates_args=())
def dequantize_weight_nvfp4(q: Tensor, scales: Tensor, scale: Tensor, block_size: int) -> Tensor:
    """E2M1 weights [K, N] to floats. `scales` in E4M3 is [K / block_size, N], and all of it is times `scale`."""
    return q.to(scale.dtype) * (scales.to(scale.dtype) * scale).repeat_interleave(block_size, 0)


@torch.library.custom_op("fimaq::dequantize_weight", mutates_args=())
def dequantize_weight(q: Tensor, scale: Tensor, axis: int) -> Tensor:
    """INT8 or FP8 weights to floats: `scale` is one-dimensional and runs along `axis`."""
    shape = [1] * q.ndim
    shape[axis] = -1
    return q.to(scale.dtype) * scale.view(shape)


@torch.library.custom_op("fimaq::dequantize_weight_blocked", mutates_args=())
def dequantize_weight_blocked(q: Tensor, scale: Tensor, block_size: int) -> Tensor:
    """INT4 weights [K, N], held in int8, to floats: `scale` is [K / block_size, N]."""
    return q.to(scale.dtype) * scale.repeat_interleave(block_size, 0)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


@quantize_dequantize_float.register_fake
def _(x: Tensor, scale: Tensor, form: str) -> Tensor:
    return torch.empty_like(x)


@quantize_dequantize_nvfp4.register_fake
def _(x: Tensor, scale: Tensor, block_size: int) -> Tensor:
    return torch.empty_like(x)


@dequantize_weight_nvfp4.register_fake
def _(q: Tensor, scales: Tensor, scale: Tensor, block_size: int) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)


@dequantize_weight.register_fake
def _(q: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)


@dequantize_weight_blocked.register_fake
def _(q: Tensor, scale: Tensor, block_size: int) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)
