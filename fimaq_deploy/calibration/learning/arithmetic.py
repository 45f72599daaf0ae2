"""How floats are computed while a model is quantized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from fimaq_deploy.calibration.device import of
from fimaq_deploy.recipe import Precision

# Half of the smallest normal number of float32.
_DENORMAL = 2.0**-127


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Denormal numbers are zero inside, for this thread and those that it starts.

    The first session of ONNX Runtime leaves its thread so, and learning amplifies the difference: without this, a build
    gives other weights behind another build than alone.
    """
    flushed_before = bool(torch.tensor(_DENORMAL).mul(1.0) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside, the same numbers as in any other process: float32 as it is, without denormal numbers."""
    with flushed_denormals(), matmul_precision(device, "float32"):
        yield


@contextmanager
def matmul_precision(device: torch.device, precision: Precision) -> Iterator[None]:
    """Products and convolutions inside in the precision asked for, whatever the process has set. auto: TF32 on a GPU,
    float32 elsewhere.

    TF32 keeps 11 bits of a significand, and every quantized value fits 11 bits (`calibration.grid`), so only the
    full-precision operands of the products are rounded.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    tf32 = of(device).tensor_cores and precision in ("auto", "tf32")
    low = torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if precision == "bfloat16" else nullcontext()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    try:
        with low:
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
