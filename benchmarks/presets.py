"""What every preset keeps of the accuracy, and whether fake-quant and ONNX agree.

    python benchmarks/presets.py
    python benchmarks/presets.py --models vit_shapes --recipes w4a4 w3a3 --images 256

For each model and preset: top-1 of the fake-quant model and its share of full precision, agreement of its predictions
with ONNX in ONNX Runtime with all optimisations off, agreement of that with optimisations on, and the process seconds
that quantizing took. Prints a table and ends in one JSON line; exit code 1 where a floor is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accuracy import agreement, top1

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.models.bundled import BUNDLED

PRESETS = ("w8a8", "w6a6", "w4a8", "w4a16", "w4a4", "w3a3")
# Percent of the full-precision top-1 that a preset must keep, and of predictions that must be equal.
RECOVERY = {"w8a8": 99.5, "w6a6": 99.0, "w4a8": 99.0, "w4a16": 99.0, "w4a4": 95.0, "w3a3": 85.0}
PARITY = 99.9
TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")


@dataclass(frozen=True)
class Row:
    """One preset on one model. Shares in percent."""

    model: str
    recipe: str
    full_precision: float
    top1: float
    onnx_off: float
    onnx_on: float
    seconds: float

    @property
    def recovery(self) -> float:
        return 100 * self.top1 / self.full_precision

    @property
    def missed(self) -> list[str]:
        floors = (("recovery", self.recovery, RECOVERY.get(self.recipe, 0.0)), ("parity", self.onnx_off, PARITY))
        return [f"{name} {value:.2f} is below {floor:g}" for name, value, floor in floors if value < floor]


def run_preset(model: str, recipe: str, full_precision: float, args: argparse.Namespace, folder: Path) -> Row:
    task = BUNDLED[model].task
    calibration = bundled_images(task, "calibration", args.images).take(args.images)
    tests = bundled_images(task, "test", args.tests)
    network = fd.load_model(model)
    started = time.process_time()
    quantized = fd.quantize(network, calibration, fd.Recipe.load(recipe), target=TARGETS, seed=args.seed)
    seconds = time.process_time() - started
    file = fd.export_onnx(quantized, folder / "model.onnx")
    exact, fused = (fd.load_engine(file, optimisations=on, threads=args.threads) for on in (False, True))
    torch_, off, on = (fd.evaluate(run, tests, batch_size=100) for run in (quantized, exact, fused))
    return Row(
        model,
        recipe,
        full_precision,
        float(torch_.top1 or 0),
        agreement(torch_, off),
        agreement(off, on),
        seconds,
    )


def print_table(rows: Sequence[Row]) -> None:
    print("\n| model | preset | FP32 | top-1 | kept % | ONNX off = fake-quant % | on = off % | s | missed |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        figures = (row.full_precision, row.top1, row.recovery, row.onnx_off, row.onnx_on)
        texts = " | ".join(f"{figure:.2f}" for figure in figures)
        print(f"| {row.model} | {row.recipe} | {texts} | {row.seconds:.0f} | {'; '.join(row.missed)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"], choices=sorted(BUNDLED))
    parser.add_argument("--recipes", nargs="+", default=list(PRESETS))
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=4000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for model in args.models:
        tests = bundled_images(BUNDLED[model].task, "test", args.tests)
        full_precision = top1(fd.load_model(model), tests)
        for recipe in args.recipes:
            with TemporaryDirectory() as folder:
                rows.append(run_preset(model, recipe, full_precision, args, Path(folder)))
            print(f"{model} {recipe}: {rows[-1].top1:.2f}", flush=True)
    print_table(rows)
    print(json.dumps({"rows": [asdict(row) for row in rows]}))
    sys.exit(any(row.missed for row in rows))


if __name__ == "__main__":
    main()
