"""What each `torch.ops.fimaq` operator becomes in ONNX, for the exporter's translation table.

A scale may be FP32 or FP16. Bounds of a Clip are written as products that constant folding turns into numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from onnxscript import ir
from onnxscript import opset21 as op

from fimaq_deploy.calibration.quantizers import ops as _ops  # noqa: F401  (registers torch.ops.fimaq)
from fimaq_deploy.calibration.quantizers.grid import IntegerRange
from fimaq_deploy.target.numbers import FORMATS


def _constant(value: Any) -> Any:
    return op.Constant(value=ir.tensor(value))  # type: ignore[arg-type]  # the exporter takes it, onnxscript names another


def _quantize_dequantize(x: Any, scale: Any, zero_point: int, low: int, high: int) -> Any:
    """[Clip] → QuantizeLinear → DequantizeLinear. The container's own saturation serves as the clip where it can."""
    span = IntegerRange(low, high, zero_point)
    container = np.int8 if span.fits_int8 else np.uint8
    stored_zero = _constant(np.array(zero_point, dtype=container))
    if not span.saturates_alone:
        bounds = (op.Mul(scale, op.CastLike(_constant(np.float32(b - zero_point)), scale)) for b in (low, high))
        x = op.Clip(x, *bounds)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, stored_zero), scale, stored_zero)


def _quantize_dequantize_float(x: Any, scale: Any, form: str) -> Any:
    """QuantizeLinear → DequantizeLinear, of a type that saturates by itself."""
    stored_zero = _constant(np.array(0, dtype=ir.DataType[FORMATS[form].onnx].numpy()))
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, stored_zero), scale, stored_zero)


def _quantize_dequantize_nvfp4(x: Any, scale: Any, block_size: int) -> Any:
    """As a pair that no standard operators are: `passes.nvfp4` writes it out for each target."""
    stored_zero = _constant(np.array(0, dtype=ml_dtypes.float4_e2m1fn))
    few = op.QuantizeLinear(x, scale, stored_zero, axis=-1, block_size=block_size)
    return op.DequantizeLinear(few, scale, stored_zero, axis=-1, block_size=block_size)


def _dequantize_weight_nvfp4(q: Any, scales: Any, scale: Any, block_size: int) -> Any:
    return op.DequantizeLinear(q, op.DequantizeLinear(scales, scale), axis=0, block_size=block_size)


def _dequantize_weight(q: Any, scale: Any, axis: int) -> Any:
    return op.DequantizeLinear(q, scale, axis=axis)


def _dequantize_weight_blocked(q: Any, scale: Any, block_size: int) -> Any:
    return op.DequantizeLinear(q, scale, axis=0, block_size=block_size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.fimaq.quantize_dequantize.default: _quantize_dequantize,
    torch.ops.fimaq.quantize_dequantize_float.default: _quantize_dequantize_float,
    torch.ops.fimaq.quantize_dequantize_nvfp4.default: _quantize_dequantize_nvfp4,
    torch.ops.fimaq.dequantize_weight_nvfp4.default: _dequantize_weight_nvfp4,
    torch.ops.fimaq.dequantize_weight.default: _dequantize_weight,
    torch.ops.fimaq.dequantize_weight_blocked.default: _dequantize_weight_blocked,
}
