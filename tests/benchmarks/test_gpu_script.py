"""`benchmarks/gpu.sh` at toy size on a CPU: the same script, flags and tables that a GPU gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
FIELDS = ["reconstruction.iterations=2", "reconstruction.batch_size=8", "reconstruction.rank=2"]
TOY = ["--device", "cpu", "--models", "swin_digits", "--recipes", "w4a4", "--images", "16", "--tests", "20"]
TOY += ["--step-iterations", "1", "2"]
ENGINES = ["--targets", "onnxruntime-cpu", "--batches", "1", "2", "--rounds", "3"]


def run(*more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run([str(SCRIPT), *TOY, *more], env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_script_prints_its_tables_and_ends_in_json(tmp_path: Path) -> None:
    settings = [word for field in FIELDS for word in ("--set", field)]
    done = run(*ENGINES, *settings, "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("| swin_digits") for line in lines) == 6  # iterations, learning, PyTorch, and two files
    found = json.loads(lines[-1])
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    exact, low = found["iterations"]
    assert (exact["precision"], low["precision"]) == ("auto", "bfloat16") and not exact["kernels"]
    assert exact["milliseconds"] >= 0 and 0 < exact["loss"] < 1  # a single iteration drowns in noise
    (learned,) = found["learning"]
    blocks = [f"layers.{layer}.blocks.{block}" for layer in range(2) for block in range(2)]
    assert list(learned["stages"]) == ["patch_embed", *blocks[:2], "layers.1.downsample", *blocks[2:], "head"]
    assert learned["iterations"] == 14 and learned["seconds"] > 0 and 0 <= learned["top1"] <= 100
    assert 0 < learned["flops_per_second"] < found["matrix_flops_per_second"]
    plain, full, quantized = found["engines"]
    assert (full["engine"], quantized["engine"]) == ("onnxruntime-cpu float32", "onnxruntime-cpu quantized")
    assert plain["error"] < 1e-5 > full["error"] and quantized["error"] < 0.05 and quantized["agreement"] >= 95
    assert all(set(row["latencies"]) == {"1", "2"} for row in found["engines"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the default would run")
def test_without_a_gpu_the_default_says_so() -> None:
    done = run("--device", "cuda")
    assert done.returncode == 2
    assert "error: device 'cuda': torch sees no CUDA device here" in done.stderr


def test_a_target_that_is_none_is_said_before_hours_of_learning() -> None:
    done = run("--targets", "openvino")
    assert done.returncode == 2 and done.stdout == ""
    assert "error: unknown target 'openvino': expected one of tensorrt, " in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="here it may run")
def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    settings = [
        "--set",
        "reconstruction.iterations=1",
        "--recipes",
        "w8a8",
        "no-such",
        "--batches",
        "1",
        "--rounds",
        "2",
    ]
    done = run(*settings, "--targets", "onnxruntime-cuda", "onnxruntime-cpu", "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 1, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == found
    learned, failed = [job["job"]["recipe"] for job in found["learning"]], found["failures"]
    assert learned == ["w8a8"] and len(failed) == 2 and "no-such" in failed[0]
    assert failed[1].startswith("swin_digits on onnxruntime-cuda: UserError: onnxruntime-cuda cannot run")
    assert [row["engine"] for row in found["engines"]][1:] == ["onnxruntime-cpu float32", "onnxruntime-cpu quantized"]
