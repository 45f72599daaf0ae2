"""What reconstruction costs and what it brings, against the published procedure written straightforwardly.

    python benchmarks/reconstruction.py
    python benchmarks/reconstruction.py --models vit_s deit_s swin_t --images 1024 --no-reference --device cuda
    python benchmarks/reconstruction.py --sweep depth images iterations memory
    benchmarks/gpu.sh

Every run is a process of its own. The first command compares, on the shipped models and in one run, this package's
recipe with `reference_loop.py` at `--reference-iterations` a block: the published number is 20,000, which nobody waits
for on a CPU, so the comparison is kind to the reference in seconds. Models with random weights have no accuracy; for
them the table has the share of images on which the quantized model and the original agree.

Prints a table and ends in one JSON line: for each run its seconds (wall and CPU), iterations, peak memory, accuracy,
the seconds and iterations of each stage, and the FLOP/s of learning against what matrix multiplication reaches here.

Peak memory: on a GPU what torch allocated, on a CPU the process's own memory without pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accuracy import agreement
from reference_loop import published, reconstruct_plainly
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fimaq_deploy as fd
from fimaq_deploy.calibration.learning.arithmetic import matmul_precision
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.choose import generated_images
from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.devices import find_device

OURS, REFERENCE = "ours", "reference"
SWEEPS = {
    "depth": [("depth", 6), ("depth", 12), ("depth", 24)],
    "images": [("images", 128), ("images", 256), ("images", 512), ("images", 1024)],
    "iterations": [("iterations", 50), ("iterations", 100), ("iterations", 200), ("iterations", 400)],
    "memory": [("streamed", 256), ("streamed", 512), ("streamed", 1024)],
}
_TARGET = "tensorrt"
_BACKWARD = 3  # a forward and a backward pass cost about three forward passes


@dataclass(frozen=True)
class Job:
    """One run. depth: of a plain ViT that stands in for `model`; streamed: activations go to memory-mapped files."""

    model: str
    recipe: str
    method: str
    seed: int
    images: int
    tests: int
    settings: tuple[str, ...] = ()
    device: str = "cpu"
    weights: str = "pretrained"
    folders: tuple[str | None, str | None] = (None, None)
    reference: tuple[int, int] = (1000, 5)
    depth: int = 0
    streamed: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Result:
    """What one run cost and brought. top1: of the quantized model, percent; agreement: with the original, percent.

    flops_per_second: of learning alone, counted as three forward passes a minibatch; None for the reference.
    """

    job: Job
    seconds: float
    cpu_seconds: float
    iterations: int
    peak_bytes: int
    top1: float | None
    full_precision_top1: float | None
    agreement: float
    stages: dict[str, tuple[float, int]]
    flops_per_second: float | None


# ------------------------------------------------------------------------------------------------------------- one run


def run(job: Job) -> Result:
    torch.set_num_threads(job.threads)
    model = load(job)
    calibration, test = sources(job, model)
    images = calibration.take(job.images)
    with peak_memory(job.device) as peak:
        started, started_cpu = time.perf_counter(), time.process_time()
        quantized, stages = (run_ours if job.method == OURS else run_reference)(job, model, images)
        if job.device != "cpu":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    original = fd.evaluate(model, test, batch_size=100)
    own = fd.evaluate(quantized, test, batch_size=100)
    return Result(
        job=job,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        iterations=sum(iterations for _, iterations in stages.values()),
        peak_bytes=peak[0],
        top1=own.top1,
        full_precision_top1=original.top1,
        agreement=agreement(own, original),
        stages=stages,
        flops_per_second=learning_rate(job, model, images[:1], stages) if job.method == OURS else None,
    )


def load(job: Job) -> nn.Module:
    if not job.depth:
        return fd.load_model(job.model, job.weights, device=job.device)
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "num_heads": 3, "num_classes": 24}
    return VisionTransformer(**size, depth=job.depth).to(job.device).eval()


def sources(job: Job, model: nn.Module) -> tuple[ImageSource, ImageSource]:
    """Images to learn from and images to test on."""
    info, folders = describe_model(model, job.model), job.folders
    if folders[0]:
        test = folder_images(folders[1], info, labelled=True) if folders[1] else folder_images(folders[0], info)
        return folder_images(folders[0], info, limit=job.images, seed=job.seed), test
    if job.model in BUNDLED:
        task = BUNDLED[job.model].task
        available = min(job.images, 256) if task == "digits" else job.images
        return bundled_images(task, "calibration", available), bundled_images(task, "test", job.tests)
    return generated_images(info, "calibration", job.images), generated_images(info, "test", job.tests)


def run_ours(job: Job, model: nn.Module, images: Tensor) -> tuple[nn.Module, dict[str, tuple[float, int]]]:
    recipe = fd.Recipe.load(job.recipe).with_settings([*job.settings, f"reconstruction.images={job.images}"])
    budget = 2**20 if job.streamed else None
    quantized = fd.quantize(model, images, recipe, target=_TARGET, seed=job.seed, memory_bytes=budget)
    return quantized, {record.name: (record.seconds, record.iterations) for record in quantized.history}


def run_reference(job: Job, model: nn.Module, images: Tensor) -> tuple[nn.Module, dict[str, tuple[float, int]]]:
    iterations, rank = job.reference
    recipe = published(fd.Recipe.load(job.recipe), iterations, rank)
    quantized, seconds = reconstruct_plainly(model, images.to(job.device), recipe, _TARGET, job.seed)
    return quantized, {name: (each, iterations) for name, each in seconds.items()}


def learning_rate(job: Job, model: nn.Module, image: Tensor, stages: dict[str, tuple[float, int]]) -> float:
    """FLOP/s of the iterations, over the time of everything that was done for each stage."""
    batch = fd.Recipe.load(job.recipe).with_settings(job.settings).reconstruction.batch_size
    total, x = 0, image.to(job.device)
    with torch.no_grad():
        for stage in stages_of(model):
            with FlopCounterMode(display=False) as counter:
                x = stage.module(x)
            total += counter.get_total_flops() * _BACKWARD * batch * stages.get(stage.name, (0, 0))[1]
    return total / max(sum(seconds for seconds, _ in stages.values()), 1e-9)


@contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """The largest memory while the block runs, in bytes, as the only item of a list."""
    found = [0]
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        yield found
        found[0] = torch.cuda.max_memory_allocated()
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            found[0] = max(found[0], own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def own_bytes() -> int:
    """Memory of this process that no file stands behind (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def matrix_rate(device: str) -> float:
    """FLOP/s of a large matrix multiplication as learning computes it here (a GPU: in TF32), the best of five."""
    size = 4096 if device != "cpu" else 1024
    a = torch.randn(size, size, device=device)
    best = 0.0
    with matmul_precision(torch.device(device), "auto"):
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(4):
                b = a @ a
            if device != "cpu":
                torch.cuda.synchronize()
            best = max(best, 8 * size**3 / (time.perf_counter() - started))
    assert b.shape == a.shape
    return best


# ------------------------------------------------------------------------------------------------------------ all runs


def jobs_of(args: argparse.Namespace) -> list[Job]:
    base = Job(
        model="",
        recipe="",
        method=OURS,
        seed=0,
        images=args.images,
        tests=args.tests,
        settings=tuple(args.set),
        device=args.device,
        weights=args.weights,
        folders=(args.image_folder, args.eval_folder),
        reference=(args.reference_iterations, 5),
        threads=args.threads,
    )
    if args.sweep:
        base = replace(base, model=args.models[0], recipe=args.recipes[0])
        return [varied(base, kind, value) for sweep in args.sweep for kind, value in SWEEPS[sweep]]
    methods = [OURS] if args.no_reference else [OURS, REFERENCE]
    return [
        replace(with_rank(base, rank), model=model, recipe=recipe, method=method, seed=seed)
        for model in args.models
        for recipe in args.recipes
        for rank in args.ranks or [None]
        for seed in args.seeds
        for method in methods
    ]


def with_rank(job: Job, rank: int | None) -> Job:
    """k for both ways; None: the recipe's and the paper's."""
    if rank is None:
        return job
    return replace(job, settings=(*job.settings, f"reconstruction.rank={rank}"), reference=(job.reference[0], rank))


def varied(job: Job, kind: str, value: int) -> Job:
    if kind == "depth":
        return replace(job, model=f"{value} blocks", depth=value)
    if kind == "iterations":
        return replace(job, settings=(*job.settings, f"reconstruction.iterations={value}"))
    return replace(job, images=value, streamed=kind == "streamed")


def run_all(jobs: Sequence[Job], workers: int) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    one_each: dict[str, Any] = {"max_tasks_per_child": 1}  # Python 3.11 and newer
    with ProcessPoolExecutor(workers, context, **one_each) as pool:
        results = []
        for result in pool.map(run, jobs):
            results.append(result)
            cost = f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU s"
            quality = f"{result.top1 or result.agreement:.2f} %"
            print(f"[{len(results)}/{len(jobs)}] {label(result.job)}: {cost}, {quality}", flush=True)
    return results


def label(job: Job) -> str:
    streamed = " streamed" if job.streamed else ""
    return f"{job.model} {job.recipe} {job.method} {job.images} images{streamed} {' '.join(job.settings)}".strip()


def spread(values: Sequence[float | None], digits: int = 2) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    deviation = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{deviation}"


def print_table(results: Sequence[Result], rate: float) -> None:
    print("\n| run | top-1 | agreement | s | CPU s | iterations | peak MiB | share of matrix rate |")
    print("|---|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(label(result.job) for result in results):
        group = [result for result in results if label(result.job) == name]
        flops = [result.flops_per_second for result in group if result.flops_per_second]
        cells = (
            spread([r.top1 for r in group]),
            spread([r.agreement for r in group]),
            spread([r.seconds for r in group], 1),
            spread([r.cpu_seconds for r in group], 1),
            f"{statistics.mean(r.iterations for r in group):.0f}",
            f"{max(r.peak_bytes for r in group) / 2**20:.0f}",
            f"{100 * statistics.mean(flops) / rate:.0f} %" if flops else "–",
        )
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_ratios(results: Sequence[Result]) -> dict[str, float]:
    """How many times longer the reference takes, in CPU seconds on a CPU and in seconds on a GPU."""
    found = {}
    for key in dict.fromkeys((r.job.model, r.job.recipe, *r.job.settings) for r in results):
        group = [r for r in results if (r.job.model, r.job.recipe, *r.job.settings) == key]
        cost = {
            method: [r.cpu_seconds if r.job.device == "cpu" else r.seconds for r in group if r.job.method == method]
            for method in (OURS, REFERENCE)
        }
        if all(cost.values()):
            found[" ".join(key)] = statistics.mean(cost[REFERENCE]) / statistics.mean(cost[OURS])
            print(f"{' '.join(key)}: the reference takes {found[' '.join(key)]:.1f} times as long")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(BUNDLED), help="shipped, short or timm names")
    parser.add_argument("--recipes", nargs="+", default=["w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=2000, help="test images")
    parser.add_argument("--image-folder", help="calibration images for a model that brings none")
    parser.add_argument("--eval-folder", help="test images, one sub-folder a class")
    parser.add_argument("--weights", default="pretrained", help="pretrained, random or a checkpoint")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe fields, ours only")
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--reference-iterations", type=int, default=1000, help="a block; published: 20,000")
    parser.add_argument("--ranks", nargs="+", type=int, help="k of both ways; default: the recipe's, and 5")
    parser.add_argument("--sweep", nargs="+", default=[], choices=sorted(SWEEPS), help="instead of the comparison")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    args = parser.parse_args()
    try:
        find_device(args.device)
    except fd.UserError as error:
        parser.error(str(error))
    rate = matrix_rate(args.device)
    results = run_all(jobs_of(args), args.workers)
    print_table(results, rate)
    print(f"matrix multiplication: {rate / 1e9:.0f} GFLOP/s")
    ratios = print_ratios(results)
    print(json.dumps({"matrix_flops_per_second": rate, "ratios": ratios, "results": [asdict(r) for r in results]}))


if __name__ == "__main__":
    main()
