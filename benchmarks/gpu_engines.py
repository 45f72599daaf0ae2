"""Every engine that this machine runs on its GPU, beside the same model in FP16 and beside PyTorch.

    python benchmarks/gpu_engines.py --models vit_s swin_t
    python benchmarks/gpu_engines.py --models vit_digits --targets onnxruntime-cpu --device cpu --batches 1 8

For each model: quantize it, write the file of each target (and compile it where the target has a compiler), compare
what it answers with the fake-quant model, and time it in turns with the FP16 file of the same target and with PyTorch
in FP16 as a captured CUDA graph. Times are from images in the host's memory to answers there, for every row alike.

Prints a table and one JSON line. --image-folder and --eval-folder as in reconstruction.py; without them images are
generated, or those that ship with a model.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from reconstruction import Job, sources
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.engines.runner import Array, Runner
from fimaq_deploy.engines.runtimes import RUNTIMES, Runtime, find_runtime
from fimaq_deploy.export.qdq import export_fp_onnx
from fimaq_deploy.measure.latency import Latency, compare_latency
from fimaq_deploy.models.devices import find_device


@dataclass(frozen=True)
class Row:
    """One engine of one model. error: relative, of its answers against the fake-quant model's (FP16: the original's).

    agreement: percent of images with the same class. latencies: by batch size.
    """

    model: str
    engine: str
    file_mib: float
    error: float
    agreement: float
    latencies: dict[int, Latency]


def torch_runner(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> Runner:
    """PyTorch in FP16; on a GPU a captured graph for each batch size, replayed on copied images."""
    model = copy.deepcopy(model).to(device).eval()
    if device.type == "cpu":
        return Runner(
            "PyTorch float32", (None, *shape), lambda batch: expected_of(model, torch.from_numpy(batch), device)
        )
    model.half()
    graphs: dict[int, tuple[Tensor, torch.cuda.CUDAGraph, Tensor]] = {}

    def captured(size: int) -> tuple[Tensor, torch.cuda.CUDAGraph, Tensor]:
        images = torch.zeros(size, *shape, device=device, dtype=torch.float16)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(images)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answers = model(images)
        return images, graph, answers

    @torch.inference_mode()
    def run(batch: Array) -> Array:
        if len(batch) not in graphs:
            graphs[len(batch)] = captured(len(batch))
        images, graph, answers = graphs[len(batch)]
        images.copy_(torch.from_numpy(batch))
        graph.replay()
        return answers.float().cpu().numpy()

    return Runner("PyTorch float16, graph", (None, *shape), run)


def runners_of(
    runtime: Runtime, folder: Path, original: nn.Module, quantized: fd.QuantizedModel
) -> Iterator[tuple[str, Path, Runner]]:
    """Full-precision and quantized files of one target, loaded."""
    for kind, model in ((runtime.target.high_precision, original), ("quantized", quantized)):
        path = folder / kind / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        write = export_fp_onnx if model is original else fd.export_onnx
        write(model, path, target=runtime.name)
        if runtime.compiler is not None:
            path = runtime.compile(path, runtime.file(path.parent)).path
        yield f"{runtime.name} {kind}", path, runtime.load(path)


def answers_of(runner: Runner, images: Array) -> Array:
    return np.concatenate([runner(images[i : i + 32]) for i in range(0, len(images), 32)])


@torch.inference_mode()
def expected_of(model: nn.Module, images: Tensor, device: torch.device) -> Array:
    return torch.cat([model(part.to(device)).float().cpu() for part in images.split(32)]).numpy()


def judged(found: Array, expected: Array) -> tuple[float, float]:
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return error, 100 * float((found.argmax(1) == expected.argmax(1)).mean())


def failed(what: str, error: BaseException) -> str:
    """One line of it, which is printed too."""
    line = f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
    print(f"failed: {line}", file=sys.stderr, flush=True)
    return line


def measured(
    name: str, targets: list[Runtime], args: argparse.Namespace, device: torch.device, failures: list[str]
) -> list[Row]:
    """Rows of one model. failures gets a line for each target that fails on the way; the others go on."""
    model = fd.load_model(name, args.weights, device=args.device)
    job = Job(name, args.recipe, "ours", 0, args.images, args.tests, folders=(args.image_folder, args.eval_folder))
    calibration, test = sources(job, model)
    tests = test.take(args.tests)
    recipe = fd.Recipe.load(args.recipe).with_settings([*args.set, f"reconstruction.images={args.images}"])
    quantized = fd.quantize(
        model, calibration.take(args.images), recipe, [each.name for each in targets] or "tensorrt", seed=0
    )
    full, low = expected_of(model, tests, device), expected_of(quantized, tests, device)
    with TemporaryDirectory() as folder:
        plain = torch_runner(model, tuple(tests.shape[1:]), device)
        runners, rows = {plain.name: plain}, {plain.name: facts(plain, tests, full, size=0.0)}
        for runtime in targets:
            (Path(folder) / runtime.name).mkdir()
            try:
                for label, path, runner in runners_of(
                    runtime, Path(folder) / runtime.name, model.cpu(), quantized.cpu()
                ):
                    reference = low if label.endswith("quantized") else full
                    rows[label] = facts(runner, tests, reference, path.stat().st_size / 2**20)
                    runners[label] = runner
            except Exception as error:  # compilers and runtimes share no base class
                failures.append(failed(f"{name} on {runtime.name}", error))
        found = compare_latency(runners, args.batches, rounds=args.rounds, seconds=args.seconds)
    return [
        Row(name, label, latencies={each.batch_size: each for each in found if each.name == label}, **row)
        for label, row in rows.items()
    ]


def facts(runner: Runner, tests: Tensor, expected: Array, size: float) -> dict[str, Any]:
    error, agreement = judged(answers_of(runner, tests.numpy()), expected)
    return {"file_mib": size, "error": error, "agreement": agreement}


def print_table(rows: list[Row], batches: list[int]) -> None:
    heads = " | ".join(f"batch {size}, ms (of PyTorch)" for size in batches)
    print(f"\n| model | engine | MiB | error | agreement | {heads} |\n|---|---|---|---|---|{'---|' * len(batches)}")
    for row in rows:
        times = " | ".join(f"{one.p50_ms:.2f} ({one.speedup:.2f}×)" for one in row.latencies.values())
        quality = f"{row.file_mib:.1f} | {row.error:.4f} | {row.agreement:.2f} %"
        print(f"| {row.model} | {row.engine} | {quality} | {times} |")


def targets_here(names: list[str] | None) -> list[Runtime]:
    """Those asked for, or all that run on this machine's GPU; says why others do not."""
    if names:
        return [find_runtime(name) for name in names]
    found = []
    for runtime in RUNTIMES.values():
        reason = next((each for each in runtime.availability() if each), None)
        if runtime.device == "gpu" and reason:
            print(f"{runtime.name}: {reason}")
        elif runtime.device == "gpu":
            found.append(runtime)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_s", "swin_t"])
    parser.add_argument("--recipe", default="w8a8")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe fields")
    parser.add_argument("--targets", nargs="+", help="default: all that run on the GPU here")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for a batch size")
    parser.add_argument("--image-folder")
    parser.add_argument("--eval-folder")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    try:
        device = find_device(args.device)
        targets = targets_here(args.targets)
    except fd.UserError as error:
        parser.error(str(error))
    rows: list[Row] = []
    failures: list[str] = []
    for name in args.models:
        rows += measured(name, targets, args, device, failures)
        print_table([row for row in rows if row.model == name], args.batches)
    print(json.dumps({"machine": platform.node(), "rows": [asdict(row) for row in rows], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
