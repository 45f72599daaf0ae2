"""`benchmarks/gpu.sh` at toy size on a CPU: the same script, flags and table that a GPU gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
TOY = ["--device", "cpu", "--models", "swin_digits", "--recipes", "w4a4", "--images", "16", "--tests", "20"]


def run(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run([str(SCRIPT), *TOY, *more], env=env, capture_output=True, text=True, timeout=300)


def test_the_script_prints_the_table_and_ends_in_json() -> None:
    fields = ["reconstruction.iterations=2", "reconstruction.batch_size=8"]
    done = run(*(word for field in fields for word in ("--set", field)), "--ranks", "2", REFERENCE="2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith("| swin_digits")]
    assert len(rows) == 2 and all(len(row.split("|")) == 10 for row in rows)
    found = json.loads(lines[-1])
    assert found["matrix_flops_per_second"] > 0 and len(found["ratios"]) == 1
    ours = [result for result in found["results"] if result["job"]["method"] == "ours"]
    assert [result["iterations"] for result in ours] == [14]
    for result in found["results"]:
        blocks = [f"layers.{layer}.blocks.{block}" for layer in range(2) for block in range(2)]
        assert list(result["stages"]) == ["patch_embed", *blocks[:2], "layers.1.downsample", *blocks[2:], "head"]
        assert result["seconds"] > 0 and 0 <= result["top1"] <= 100
    assert all(0 < result["flops_per_second"] < found["matrix_flops_per_second"] for result in ours)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the default would run")
def test_without_a_gpu_the_default_says_so() -> None:
    done = run("--device", "cuda")
    assert done.returncode == 2
    assert "error: device 'cuda': torch sees no CUDA device here" in done.stderr
