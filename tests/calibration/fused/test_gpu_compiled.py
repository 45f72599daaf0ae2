"""Every kernel that a learning step launches compiles to machine code for GPUs, with the types of its launches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fimaq_deploy.calibration.fused as fused

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
TESTS = Path(__file__).parents[2]
CAPABILITIES = "75", "90", "120"


def launched() -> set[str]:
    """The kernels that the modules start, as `module.kernel`."""
    files = [path for folder in fused.__path__ for path in Path(folder).glob("*.py")]
    found = ((path.stem, re.findall(r"\b(_\w+)\[", path.read_text(encoding="utf-8"))) for path in files)
    return {f"{module}.{name}" for module, names in found for name in names}


@pytest.mark.slow
def test_every_kernel_compiles_for_gpus() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fixtures.gpu_kernels", *CAPABILITIES]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    compiled = {(capability, name) for capability, _, name, *_ in map(str.split, done.stdout.splitlines())}
    assert compiled == {(capability, name) for capability in CAPABILITIES for name in launched()}
