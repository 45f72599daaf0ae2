"""Whether an NVIDIA GPU can be used here, asked of the driver itself: no torch, no CUDA toolkit."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@cache
def no_gpu() -> str | None:
    """Why no GPU can be used, or None where one can."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return "no NVIDIA driver is installed here"
    if driver.cuInit(0):
        return "the NVIDIA driver does not start here"
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU here"
    return None
