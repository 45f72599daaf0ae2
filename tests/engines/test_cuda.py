"""The driver is asked through its C interface; where there is none, a library that answers like one is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from fimaq_deploy.engines.cuda import Driver, Gpu, ask_driver, no_gpu

# Two GPUs, an H100 and an RTX 4090, under a driver for CUDA 13.1.
ANSWERS = """
#include <stddef.h>
#include <string.h>
static int starts = STARTS, gpus = GPUS;
int cuInit(unsigned flags) { return flags || !starts; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = gpus; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 40 ? "NVIDIA H100 80GB HBM3" : "NVIDIA GeForce RTX 4090", length);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)(device == 40 ? 80 : 24) << 30; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    if (which == 75) *value = device == 40 ? 9 : 8;
    else if (which == 76) *value = device == 40 ? 0 : 9;
    else return 1;
    return 0;
}
"""


def driver(folder: Path, *, starts: int = 1, gpus: int = 2) -> str:
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    source = folder / "driver.c"
    source.write_text(ANSWERS)
    library = folder / "libdriver.so"
    flags = ["-shared", "-fPIC", f"-DSTARTS={starts}", f"-DGPUS={gpus}"]
    subprocess.run([compiler, *flags, "-o", library, source], check=True, timeout=60)
    return str(library)


def test_the_driver_says_what_torch_sees() -> None:
    reason = no_gpu()
    if torch.cuda.is_available():
        assert reason is None
        assert ask_driver().gpus[0].capability == torch.cuda.get_device_capability(0)
    assert reason is None or (reason.endswith("here") and "\n" not in reason)
    assert no_gpu() is reason, "it is asked once"


def test_every_gpu_with_its_generation_and_memory(tmp_path: Path) -> None:
    found = ask_driver(driver(tmp_path))
    assert found == Driver(
        None,
        (13, 1),
        (Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30), Gpu("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30)),
    )


def test_what_keeps_a_driver_from_working(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert ask_driver(str(tmp_path / "none.so")).refusal == "no NVIDIA driver is installed here"
    assert ask_driver(driver(tmp_path / "a", starts=0)).refusal == "the NVIDIA driver does not start here"
    found = ask_driver(driver(tmp_path / "b", gpus=0))
    assert found == Driver("the NVIDIA driver finds no GPU here", (13, 1))
