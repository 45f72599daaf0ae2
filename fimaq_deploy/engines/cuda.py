"""The NVIDIA GPUs here, asked of the driver itself: no torch, no CUDA toolkit."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

from fimaq_deploy.engines.runner import ComputeCapability

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

# Of the driver's enumeration of what a device has.
_MAJOR, _MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver tells it, in the driver's order."""

    name: str
    capability: ComputeCapability
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """What the driver says. refusal: why no GPU can be used, None where one can. cuda: the newest CUDA that it runs."""

    refusal: str | None = None
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()


@cache
def ask_driver(library: str = LIBRARY) -> Driver:
    """Start the driver and look at every GPU that CUDA_VISIBLE_DEVICES leaves. It is asked once.

    library: its file, by name or path.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Driver("no NVIDIA driver is installed here")
    if driver.cuInit(0):
        return Driver("the NVIDIA driver does not start here")
    version, count = ctypes.c_int(), ctypes.c_int()
    known = None if driver.cuDriverGetVersion(ctypes.byref(version)) else _cuda_version(version.value)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Driver("the NVIDIA driver finds no GPU here", known)
    return Driver(None, known, tuple(_gpu(driver, number) for number in range(count.value)))


def no_gpu() -> str | None:
    """Why no GPU can be used, or None where one can."""
    return ask_driver().refusal


def _cuda_version(number: int) -> tuple[int, int]:
    """From the driver's 1000 * major + 10 * minor."""
    return number // 1000, number % 1000 // 10


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = (_attribute(driver, which, device) for which in (_MAJOR, _MINOR))
    return Gpu(name.value.decode(errors="replace"), (major, minor), memory.value)


def _attribute(driver: ctypes.CDLL, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value
