"""All that a machine with an NVIDIA GPU has to prove, in one run: learning, then every engine that runs there.

    benchmarks/gpu.sh
    python benchmarks/gpu.py --device cpu --models vit_digits --recipes w4a4 --targets onnxruntime-cpu --batches 1 8

Iterations: how long one takes by torch's operators and by Triton's kernels, and the error that each leaves behind.
Learning: each model with random weights (or --weights) by each recipe, in a process of its own: seconds, CPU seconds,
peak memory, share of the matrix rate, agreement with full precision. Engines: the same models in W8A8, each target's
file against the fake-quant model, and its latency in turns with FP16 and with PyTorch in FP16 as a captured graph.

Ends in one table of each kind and one JSON document, on the last line and in --json, which is written after learning
already. A run or an engine that fails is told and named in the document, and does not stop the others; exit code 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_engines
import gpu_steps
import reconstruction
import torch

import fimaq_deploy as fd
from fimaq_deploy.files import write_whole
from fimaq_deploy.models.devices import find_device


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "cpu": platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "compute_capability": [properties.major, properties.minor],
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_s", "swin_t", "vit_b", "swin_b"])
    parser.add_argument("--recipes", nargs="+", default=["w4a4", "w3a3"])
    parser.add_argument("--engine-models", nargs="+", help="default: the first two models")
    parser.add_argument("--engine-recipe", default="w8a8")
    parser.add_argument("--targets", nargs="*", help="default: all that run on the GPU here; none: learning alone")
    parser.add_argument("--step-iterations", nargs=2, type=int, default=[100, 300], help="few and more; 0 0: none")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=1024, help="calibration images")
    parser.add_argument("--tests", type=int, default=512, help="images to compare on")
    parser.add_argument("--image-folder", help="calibration images")
    parser.add_argument("--eval-folder", help="test images, one sub-folder a class")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe fields")
    parser.add_argument("--weights", default="pretrained", help="pretrained, random or a checkpoint")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for a batch size of an engine")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="where the document goes as well")
    args = parser.parse_args()
    try:
        find_device(args.device)
        args.targets = gpu_engines.targets_here(args.targets) if args.targets is None or args.targets else []
    except fd.UserError as error:
        parser.error(str(error))
    return args


def base_job(args: argparse.Namespace) -> reconstruction.Job:
    return reconstruction.Job(
        model="",
        recipe="",
        method=reconstruction.OURS,
        seed=0,
        images=args.images,
        tests=args.tests,
        settings=tuple(args.set),
        device=args.device,
        weights=args.weights,
        folders=(args.image_folder, args.eval_folder),
        threads=torch.get_num_threads(),
    )


def iterations(args: argparse.Namespace, failures: list[str]) -> list[gpu_steps.Row]:
    """Of every model by its first recipe."""
    rows: list[gpu_steps.Row] = []
    for name in args.models if any(args.step_iterations) else ():
        job = reconstruction.replace(base_job(args), model=name, recipe=args.recipes[0])
        print(f"iterations: {reconstruction.label(job)}", flush=True)
        try:
            rows += gpu_steps.measured(job, args.step_iterations)
        except Exception as error:
            failures.append(gpu_engines.failed(f"iterations of {name}", error))
    return rows


def learning(args: argparse.Namespace, failures: list[str]) -> list[reconstruction.Result]:
    base = base_job(args)
    jobs = [
        reconstruction.replace(base, model=model, recipe=recipe, seed=seed)
        for model in args.models
        for recipe in args.recipes
        for seed in args.seeds
    ]
    results = []
    for number, job in enumerate(jobs, 1):
        print(f"learning {number}/{len(jobs)}", flush=True)
        try:
            results += reconstruction.run_all([job], workers=1)
        except Exception as error:  # also a process that the system ended
            failures.append(gpu_engines.failed(reconstruction.label(job), error))
    return results


def main() -> int:
    args = arguments()
    device = torch.device(args.device)
    failures: list[str] = []
    rate = reconstruction.matrix_rate(args.device)
    steps = iterations(args, failures)
    if steps:
        gpu_steps.print_table(steps, rate)
    results = learning(args, failures)
    reconstruction.print_table(results, rate)
    print(f"matrix multiplication: {rate / 1e12:.3g} TFLOP/s", flush=True)
    rows: list[gpu_engines.Row] = []

    def document() -> str:
        found = {
            "machine": machine(device),
            "matrix_flops_per_second": rate,
            "iterations": [asdict(row) for row in steps],
            "learning": [asdict(result) for result in results],
            "engines": [asdict(row) for row in rows],
            "failures": failures,
        }
        if args.json:
            write_whole(args.json, f"{json.dumps(found)}\n".encode())
        return json.dumps(found)

    document()
    args.recipe, args.images, args.tests = args.engine_recipe, min(args.images, 256), min(args.tests, 128)
    for name in (args.engine_models or args.models[:2]) if args.targets else ():
        try:
            rows += gpu_engines.measured(name, args.targets, args, device, failures)
        except Exception as error:  # noqa: PERF203
            failures.append(gpu_engines.failed(f"engines of {name}", error))
    if rows:
        gpu_engines.print_table(rows, args.batches)
    print(document())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
