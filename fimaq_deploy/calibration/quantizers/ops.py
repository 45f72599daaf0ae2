"""The arithmetic of a frozen quantized model, as four torch operators.

A quantized model computes through these and nothing else, so the exporter translates four operators and every runtime
sees the numbers that PyTorch saw. Rounding is half to even. Importing this module registers them as
`torch.ops.fimaq.*`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.quantizers.formats import FORMATS
from fimaq_deploy.calibration.quantizers.nearest import nearest


@torch.library.custom_op("fimaq::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """Per-tensor fake quantization: `scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point)`.

    `scale` has no dimensions. Zero point 0 with integers in [-128, 127] is an INT8 tensor, [0, 255] a UINT8 one.
    """
    if of(x.device).fuses:
        from fimaq_deploy.calibration.quantizers import fused

        return fused.quantize_dequantize(x, scale, scale.new_full((), zero_point - low), high - low)
    return x.div(scale).round_().add_(zero_point).clamp_(low, high).sub_(zero_point).mul_(scale)


@torch.library.custom_op("fimaq::quantize_dequantize_float", mutates_args=())
def quantize_dequantize_float(x: Tensor, scale: Tensor, form: str) -> Tensor:
    """Per-tensor fake quantization to a floating-point format of `formats`, by name: `scale * nearest(x / scale)`."""
    return nearest(x.div(scale), FORMATS[form]).mul_(scale)


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


@dequantize_weight.register_fake
def _(q: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)


@dequantize_weight_blocked.register_fake
def _(q: Tensor, scale: Tensor, block_size: int) -> Tensor:
    return torch.empty_like(q, dtype=scale.dtype)
