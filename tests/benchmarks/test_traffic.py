"""The traffic of a learning step is counted in a process of its own: the second device stays where it is registered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
ROOT = Path(__file__).parents[2]


def counted(*options: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "benchmarks/traffic.py"), "--models", "toy", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])["toy"]


@pytest.mark.slow
def test_kernels_move_less_in_fewer_launches() -> None:
    fused, plain = counted(), counted("--plain")
    # Of its products nothing is left out but those of the loss.
    assert 0.99 * plain["flops"] < fused["flops"] <= plain["flops"]
    assert fused["kernels"] < 0.5 * plain["kernels"]
    assert fused["bytes"] < 0.5 * plain["bytes"]


def test_the_interpreter_is_refused() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/traffic.py"), "--models", "toy"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "TRITON_INTERPRET" in done.stderr
