"""Is it faster on a CPU? Our graphs against FP32, ONNX Runtime's own quantizer and NNCF, in both CPU runtimes.

    python benchmarks/cpu_engines.py
    python benchmarks/cpu_engines.py --models deit_t --rows fp32 w8a8 nncf --batches 1 --seconds 10 --profile 8

All rows of a model are made from one float model at 224×224: random weights of unit gain (timm's own initialisation
would hide the blocks behind the residual stream) and the same calibration images. Nothing is learned, latency does not
need it: our scales are searched and no block is reconstructed.

- `fp32`: the float file.
- `w8a8`, `w8a8 openvino`, `w4a16`: ours, the first and last built for onnxruntime-cpu, the second for openvino-cpu.
- `ort default`: `quantize_static(float, file, reader)`. `ort u8`: the same with unsigned activations, and nothing but
  MatMul, Gemm and Conv.
- `nncf`: `nncf.quantize` with its transformer preset on OpenVINO's model of the float file; only OpenVINO reads it.

Every graph runs in ONNX Runtime and in OpenVINO. All engines of a model and a batch size are timed in turns, with one
thread, and compared round by round with FP32 in ONNX Runtime. The clock is the process's CPU time, which with one
thread is the latency that an idle core would give; `--wall` takes the wall clock.

`agreement` is the share of images whose first class is that of FP32, `error` the norm of the difference of the logits
to FP32's over the norm of FP32's. The mean over the images is taken off the logits first, for a random model favours a
few classes. Prints the operators of ONNX Runtime's optimised graphs, a table, with `--profile N` where the time goes,
and ends in one JSON line. Needs the extras `bench` and `openvino`; what cannot run here is named and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import timm
import torch
from numpy.typing import NDArray

import fimaq_deploy as fd
from fimaq_deploy.engines import Runner, load_engine
from fimaq_deploy.engines.onnxruntime import optimised_operators
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import export_fp_onnx
from fimaq_deploy.measure.latency import Latency, compare_latency

Array = NDArray[Any]

MODELS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
}
RUNTIMES = ("onnxruntime-cpu", "openvino-cpu")
CALIBRATION_IMAGES, CALIBRATION_SEED, TEST_SEED = 64, 1, 2
SEARCH_ONLY = {
    "reconstruction": {"iterations": 0, "images": CALIBRATION_IMAGES},
    "scale_search": {"images": CALIBRATION_IMAGES},
    "tuning": {"iterations": 0},
}


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def float_model(name: str, seed: int = 0) -> torch.nn.Module:
    """A timm model whose blocks matter: weights of unit gain, biases and norms a little off their start."""
    model = timm.create_model(MODELS[name])
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(values / math.sqrt(parameter[0].numel()))
        else:
            parameter.add_(values, alpha=0.1)
    return model.eval()


# ----------------------------------------------------------------------------------------------------------- the graphs


@dataclass(frozen=True)
class Source:
    """What the rows of one model are made from."""

    model: torch.nn.Module
    float_file: Path
    images: torch.Tensor

    def single_images(self) -> list[Array]:
        return list(self.images.numpy()[:, None])


def write_float(source: Source, path: Path) -> None:
    export_fp_onnx(source.model, path)


def write_ours(recipe: str, target: str) -> Callable[[Source, Path], None]:
    def write(source: Source, path: Path) -> None:
        settings = fd.Recipe.load(recipe).replace(**SEARCH_ONLY)
        fd.export_onnx(fd.quantize(source.model, source.images, settings, target), path)

    return write


def write_static(**options: Any) -> Callable[[Source, Path], None]:
    def write(source: Source, path: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.images = iter(source.single_images())

            def get_next(self) -> dict[str, Array] | None:
                image = next(self.images, None)
                return None if image is None else {"images": image}

        chosen = {key: QuantType[value] if key == "activation_type" else value for key, value in options.items()}
        quantize_static(source.float_file, path, Reader(), **chosen)

    return write


def write_nncf(source: Source, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(source.float_file)
    model.reshape({0: [1, 3, 224, 224]})
    images = nncf.Dataset(source.single_images())
    quantized = nncf.quantize(model, images, model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION_IMAGES)
    quantized.reshape({0: [-1, 3, 224, 224]})
    openvino.save_model(quantized, path, compress_to_fp16=False)


@dataclass(frozen=True)
class Row:
    """A graph: how its file is written and which runtimes read it."""

    write: Callable[[Source, Path], None]
    runtimes: tuple[str, ...] = RUNTIMES
    suffix: str = ".onnx"


ROWS = {
    "fp32": Row(write_float),
    "w8a8": Row(write_ours("w8a8", "onnxruntime-cpu")),
    "w8a8 openvino": Row(write_ours("w8a8", "openvino-cpu")),
    "w4a16": Row(write_ours("w4a16", "onnxruntime-cpu")),
    "ort default": Row(write_static()),
    "ort u8": Row(write_static(activation_type="QUInt8", op_types_to_quantize=["MatMul", "Gemm", "Conv"])),
    "nncf": Row(write_nncf, ("openvino-cpu",), ".xml"),
}


def write_graphs(name: str, rows: list[str], folder: Path) -> dict[str, Path]:
    """The files of a model by row; what is in the folder already is not made again."""
    files = {row: folder / f"{name}.{row.replace(' ', '-')}{ROWS[row].suffix}" for row in rows}
    float_file = folder / f"{name}.fp32.onnx"
    source = Source(float_model(name), float_file, noise(CALIBRATION_IMAGES, CALIBRATION_SEED))
    if not float_file.exists():
        write_float(source, float_file)
    for row, path in list(files.items()):
        started = time.perf_counter()
        if not path.exists():
            try:
                ROWS[row].write(source, path)
            except ImportError as error:
                print(f"{name} {row}: left out, {error}", flush=True)
                del files[row]
                continue
            print(f"{name} {row}: written in {time.perf_counter() - started:.0f} s", flush=True)
    return files


# ------------------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Cell:
    """One engine at one batch size. speedup: over FP32 in ONNX Runtime, median of the rounds' own ratios."""

    model: str
    row: str
    runtime: str
    batch_size: int
    p50_ms: float
    speedup: float
    speedup_interval: tuple[float, float]
    agreement: float
    error: float


def load_runners(name: str, files: dict[str, Path], runtimes: list[str]) -> dict[tuple[str, str], Runner]:
    """Engines by (row, runtime), FP32 in ONNX Runtime first: what the others are compared with."""
    found: dict[tuple[str, str], Runner] = {}
    for row, path in files.items():
        for runtime in (r for r in ROWS[row].runtimes if r in runtimes):
            try:
                runner = load_engine(path, runtime, threads=1)
                runner(np.zeros((1, 3, 224, 224), np.float32))
            except (UserError, RuntimeError) as error:
                print(f"{name} {row}: left out of {runtime}, {' '.join(str(error).split())[:200]}", flush=True)
                continue
            found[row, runtime] = runner
    return found


def centred_logits(runner: Runner, images: Array) -> Array:
    logits = np.concatenate([runner(images[start : start + 8]) for start in range(0, len(images), 8)])
    return logits - logits.mean(0)


def measure(name: str, runners: dict[tuple[str, str], Runner], args: argparse.Namespace) -> Iterator[Cell]:
    images = noise(args.images, TEST_SEED).numpy()
    logits = {key: centred_logits(runner, images) for key, runner in runners.items()}
    reference = next(iter(logits.values()))
    labelled = {"|".join(key): runner for key, runner in runners.items()}
    clock = time.perf_counter if args.wall else time.process_time
    for latency in compare_latency(
        labelled, args.batches, rounds=args.rounds, warm_up=2, seconds=args.seconds, images=images, clock=clock
    ):
        row, runtime = latency.name.split("|")
        yield cell_of(name, row, runtime, latency, logits[row, runtime], reference)


def cell_of(name: str, row: str, runtime: str, latency: Latency, logits: Array, reference: Array) -> Cell:
    return Cell(
        name,
        row,
        runtime,
        latency.batch_size,
        latency.p50_ms,
        latency.speedup,
        latency.speedup_interval,
        float(np.mean(logits.argmax(1) == reference.argmax(1))),
        float(np.linalg.norm(logits - reference) / np.linalg.norm(reference)),
    )


# ------------------------------------------------------------------------------------------------- where the time goes


def profile_onnxruntime(path: Path, batch: Array, runs: int) -> Counter[str]:
    """Milliseconds of one run by operator: the sum over its nodes of each node's fastest run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = 1, 3, True
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, {"images": batch})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    fastest: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            fastest[key] = min(fastest.get(key, math.inf), event["dur"] / 1000)
    return totals(fastest)


def profile_openvino(path: Path, batch: Array, runs: int) -> Counter[str]:
    """The same by layer and kernel. OpenVINO names what it fused after the first layer."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({0: list(batch.shape)})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    fastest: dict[tuple[str, str], float] = {}
    for _ in range(runs):
        request.infer({0: batch})
        for info in request.get_profiling_info():
            key = f"{info.node_type} {info.exec_type}", info.node_name
            fastest[key] = min(fastest.get(key, math.inf), info.real_time.total_seconds() * 1000)
    return totals(fastest)


def totals(fastest: dict[tuple[str, str], float]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (kind, _), milliseconds in fastest.items():
        found[kind] += milliseconds  # type: ignore[assignment]
    return found


def print_profiles(name: str, files: dict[str, Path], runtimes: list[str], args: argparse.Namespace) -> None:
    profilers = {"onnxruntime-cpu": profile_onnxruntime, "openvino-cpu": profile_openvino}
    for batch_size in args.batches:
        batch = noise(batch_size, TEST_SEED).numpy()
        for row, path in files.items():
            for runtime in (r for r in ROWS[row].runtimes if r in runtimes):
                found = profilers[runtime](path, batch, 10)
                parts = ", ".join(f"{kind} {ms:.2f}" for kind, ms in found.most_common(args.profile))
                print(f"{name} {row} {runtime} batch {batch_size}: {sum(found.values()):.2f} ms: {parts}", flush=True)


# ------------------------------------------------------------------------------------------------------------- printing


def print_operators(name: str, files: dict[str, Path]) -> dict[str, dict[str, int]]:
    """The operators of ONNX Runtime's optimised graphs."""
    found = {}
    for row, path in files.items():
        if path.suffix == ".onnx":
            found[row] = dict(optimised_operators(path).most_common())
            print(f"{name} {row}: " + ", ".join(f"{count} {kind}" for kind, count in found[row].items()), flush=True)
    return found


def print_table(cells: list[Cell]) -> None:
    columns = list(dict.fromkeys((cell.model, cell.batch_size) for cell in cells))
    print("\n| graph | runtime | " + " | ".join(f"{model} × {size}, ms" for model, size in columns), end=" | ")
    print(" | ".join(f"{model} agreement, error" for model in dict.fromkeys(model for model, _ in columns)) + " |")
    print("|---|---|" + "---:|" * (len(columns) + len({model for model, _ in columns})))
    for row, runtime in dict.fromkeys((cell.row, cell.runtime) for cell in cells):
        mine = {(c.model, c.batch_size): c for c in cells if (c.row, c.runtime) == (row, runtime)}
        times = [f"**{c.speedup:.2f}** {c.p50_ms:.1f}" if (c := mine.get(key)) else "–" for key in columns]
        quality = {c.model: f"{c.agreement:.1%}, {c.error:.3f}" for c in mine.values()}
        close = [quality.get(model, "–") for model in dict.fromkeys(model for model, _ in columns)]
        print(f"| {row} | {runtime} | " + " | ".join([*times, *close]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="fp32 is always there")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=50, help="most rounds for a model and batch size")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop a model and batch size after so many")
    parser.add_argument("--images", type=int, default=64, help="test images for agreement and error")
    parser.add_argument("--wall", action="store_true", help="time by the wall clock")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N kinds that take most time")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the graphs here and use those that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(dict.fromkeys(["fp32", *args.rows]))
    runtimes = list(dict.fromkeys(["onnxruntime-cpu", *args.runtimes]))
    cells: list[Cell] = []
    operators = {}
    with TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            files = write_graphs(name, rows, folder)
            operators[name] = print_operators(name, files)
            cells += measure(name, load_runners(name, files, runtimes), args)
            if args.profile:
                print_profiles(name, files, runtimes, args)
    print_table(cells)
    print(json.dumps({"cells": [asdict(cell) for cell in cells], "operators": operators}))


if __name__ == "__main__":
    main()
