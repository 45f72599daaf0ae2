"""Two real processes that talk through gloo, started as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.versions import has_a_second_device
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.parallel import Group
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

Make = Callable[..., Any]

SETTINGS = {"reconstruction": {"images": 32, "batch_size": 8, "iterations": 40, "loss": "dplr", "rank": 2}}
WORKER = """
import sys
import torch
from timm.models.vision_transformer import VisionTransformer
from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

with parallel.session("cpu") as group:
    model, images, settings = torch.load(sys.argv[1], weights_only=False)
    quantized = quantize(model, iter(images.split(5)), Recipe.load("w4a4").replace(**settings), "tensorrt")
    quantized.save(f"{sys.argv[2]}/{group.rank}.safetensors")
    torch.save(quantized(images), f"{sys.argv[2]}/{group.rank}.pt")
"""


SELECTING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fixtures.second_device import Elsewhere, second_device
from fimaq_deploy.calibration import parallel

Elsewhere.select = lambda self: Path(f"{parallel.own_device('elsewhere')}").write_text(str(self.device))
with second_device(), parallel.session("elsewhere") as group:
    assert group.size == 2
"""


def torchrun(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def error(logits: Tensor, exact: Tensor) -> float:
    return ((logits - exact).square().sum() / exact.square().sum()).item()


def test_a_process_alone_reduces_nothing() -> None:
    group, tensor = parallel.current(), torch.ones(2)
    assert group == Group(0, 1) and group.leads
    assert group.mean(tensor) is tensor and group.sum(tensor) is tensor
    assert group.agree_on(lambda: 7) == 7
    assert parallel.divided(Recipe(), 1) == Recipe()


def test_processes_divide_minibatches() -> None:
    recipe = parallel.divided(Recipe().replace(reconstruction={"batch_size": 32, "fisher_images": 10}), 4)
    assert (recipe.reconstruction.batch_size, recipe.reconstruction.fisher_images) == (8, 3)


def of_torchrun(patch: pytest.MonkeyPatch, **environment: str) -> None:
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in names:
        patch.delenv(name, raising=False)
    for name, value in environment.items():
        patch.setenv(name, value)


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    of_torchrun(monkeypatch)
    assert [parallel.own_device(name) for name in ("cuda", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    of_torchrun(monkeypatch, WORLD_SIZE="8", RANK="6", LOCAL_RANK="2", LOCAL_WORLD_SIZE="4")
    assert [parallel.own_device(name) for name in ("cuda", "cpu")] == ["cuda:2", "cpu"]
    with pytest.raises(UserError, match="device 'cuda:1' for several processes: name 'cuda'"):
        parallel.own_device("cuda:1")
    of_torchrun(monkeypatch, WORLD_SIZE="2", RANK="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    assert parallel.own_device("cuda:1") == "cuda:1"


def test_processes_that_torchrun_did_not_start_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    of_torchrun(monkeypatch, WORLD_SIZE="2", RANK="1")
    with pytest.raises(UserError, match="LOCAL_RANK is not: start the processes with torchrun"):
        parallel.own_device("cuda")


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="here there is such a GPU")
def test_more_processes_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    of_torchrun(monkeypatch, WORLD_SIZE="8", RANK="7", LOCAL_RANK="7", LOCAL_WORLD_SIZE="8")
    with pytest.raises(UserError, match="device 'cuda:7'"), parallel.session("cuda"):
        pass
    assert not torch.distributed.is_initialized()


@has_a_second_device
def test_processes_select_the_devices_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SELECTING)
    output, _ = (job := torchrun("worker.py", str(Path(__file__).parents[1]), cwd=tmp_path)).communicate(timeout=120)
    assert job.returncode == 0, output
    found = {path.name: path.read_text() for path in tmp_path.glob("elsewhere*")}
    assert found == {"elsewhere:0": "elsewhere:0", "elsewhere:1": "elsewhere:1"}


@pytest.fixture(scope="module")
def task(tiny_vit: Make, random_images: Make) -> tuple[nn.Module, Tensor]:
    return tiny_vit(), random_images(32)


def test_two_processes_learn_one_model_as_good_as_that_of_one(task: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    model, images = task
    torch.save((model, images, SETTINGS), tmp_path / "task.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    output, _ = (job := torchrun("worker.py", "task.pt", ".", cwd=tmp_path)).communicate(timeout=300)
    assert job.returncode == 0, output
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    with torch.no_grad():
        exact = model(images)
        recipe = Recipe.load("w4a4").replace(**SETTINGS)
        alone = [error(quantize(model, images, recipe, "tensorrt", seed=seed)(images), exact) for seed in range(4)]
    together = error(torch.load(tmp_path / "0.pt"), exact)
    spread = max(alone) - min(alone)
    assert min(alone) - spread < together < max(alone) + spread


def build_command(out: Path, *more: str) -> list[str]:
    settings = ["reconstruction.images=64", "reconstruction.iterations=150", "reconstruction.loss=mse"]
    words = ["--model", "vit_digits", "--recipe", "w4a4", "--target", "onnxruntime-cpu", "--out", str(out), *more]
    return ["-m", "fimaq_deploy", "build", *words, *(word for setting in settings for word in ("--set", setting))]


def process_of_rank(job: subprocess.Popen[str], rank: int) -> int:
    """The process id of a worker of torchrun's."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    return next(int(pid) for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker through /proc")
def test_a_killed_worker_ends_the_job_and_leaves_what_can_be_resumed(tmp_path: Path) -> None:
    out, blocks = tmp_path / "built", tmp_path / "built.partial" / "resume"
    job = torchrun(*build_command(out))
    deadline = time.monotonic() + 240
    while len(list(blocks.glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process_of_rank(job, 1), signal.SIGKILL)
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "error: another process of this job ended" in output and "--resume" in output
    finished = {path.name: path.read_bytes() for path in blocks.glob("*.safetensors")}
    assert len(finished) >= 2 and not out.exists()
    output, _ = (again := torchrun(*build_command(out, "--resume"))).communicate(timeout=300)
    assert again.returncode == 0, output
    assert output.count(f"Wrote {out}") == 1
    assert (out / "manifest.json").exists() and not blocks.exists()
