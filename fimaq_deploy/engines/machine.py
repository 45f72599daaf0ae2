"""The machine and the software, found without loading any framework that is not already loaded."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Of the road to a file; each runtime adds its own.
PACKAGES = ("fimaq-deploy", "torch", "timm", "onnx", "onnxscript", "onnx-ir", "numpy")


@dataclass(frozen=True)
class Environment:
    """A machine and its software. packages: distribution name to version. gpu, driver: None where there is none."""

    platform: str
    cpu: str
    cores: int
    gpu: str | None
    driver: str | None
    python: str
    packages: Mapping[str, str]


def describe_environment(more: Iterable[str] = ()) -> Environment:
    """What a reader needs to judge the figures of this build. more: distributions that take part beside `PACKAGES`."""
    gpu, driver = _gpu()
    return Environment(
        platform=platform.platform(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        gpu=gpu,
        driver=driver,
        python=platform.python_version(),
        packages=package_versions((*PACKAGES, *more)),
    )


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {name: _version(name) for name in dict.fromkeys(names)}
    return {name: known for name, known in found.items() if known}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's model name."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> tuple[str | None, str | None]:
    """Name and driver version of the first NVIDIA GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None, None
    name, _, driver = (lines[0] if lines else "").partition(", ")
    return name or None, driver or None
