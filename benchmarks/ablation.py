"""Which choice is worth what: losses, roundings and rewrites at low bits on the shipped models.

    python benchmarks/ablation.py
    python benchmarks/ablation.py --models swin_shapes --bits w3a3 --rows mse dplr --seeds 0

Every row differs from the default recipe of its bits in what its name says. Rows named after a loss leave joint tuning
out, so that they compare losses and nothing else. Prints a table of test top-1 and seconds (mean and, behind ±, the
standard deviation over seeds) and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import torch
from accuracy import top1

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.models.bundled import BUNDLED

BLOCKS_ALONE = ("tuning.iterations=0",)
LOSSES = ("mse", "brecq", "diag", "low_rank", "dplr", "least_squares", "feature", "divergence")
SHARP = ("brecq", "divergence")  # also at temperature 1: the true class probabilities
ROUNDINGS = ("adaround", "sign_gradient")

ROWS: dict[str, tuple[str, ...]] = {
    "round to nearest": ("scale_search.candidates=1", "reconstruction.iterations=0", *BLOCKS_ALONE),
    "scale search": ("reconstruction.iterations=0", *BLOCKS_ALONE),
    **{loss: (f"reconstruction.loss={loss}", *BLOCKS_ALONE) for loss in LOSSES},
    **{f"{loss} T=1": (f"reconstruction.loss={loss}", "reconstruction.temperature=1", *BLOCKS_ALONE) for loss in SHARP},
    **{f"rounding {kind}": (f"reconstruction.rounding={kind}", *BLOCKS_ALONE) for kind in ROUNDINGS},
    "no qdrop": ("reconstruction.qdrop=0", *BLOCKS_ALONE),
    "searched weight scales": ("reconstruction.weight_scale_lr=0", *BLOCKS_ALONE),
    "given biases and norms": ("reconstruction.other_lr=0", *BLOCKS_ALONE),
    "roundings and activation scales": (
        "reconstruction.weight_scale_lr=0",
        "reconstruction.other_lr=0",
        *BLOCKS_ALONE,
    ),
    "no rewrite": ("rewrites.norm=false", *BLOCKS_ALONE),
    "rewrite heads": ("rewrites.heads=true", *BLOCKS_ALONE),
    "rewrite rotation": ("rewrites.rotation=true", *BLOCKS_ALONE),
    "tuning alone": ("reconstruction.iterations=0",),
    "default": (),
}

FIXED = ("round to nearest", "scale search")  # the seed changes nothing


@dataclass(frozen=True)
class Cell:
    """One run."""

    model: str
    bits: str
    row: str
    seed: int
    top1: float
    seconds: float


def run_cell(model: str, bits: str, row: str, seed: int, settings: Sequence[str], images: int, tests: int) -> Cell:
    torch.set_num_threads(1)
    task = BUNDLED[model].task
    recipe = fd.Recipe.load(bits).with_settings([*settings, *ROWS[row]])
    calibration = bundled_images(task, "calibration", images).take(images)
    network = fd.load_model(model)
    started = time.process_time()
    quantized = fd.quantize(network, calibration, recipe, target="tensorrt", seed=seed)
    seconds = time.process_time() - started
    return Cell(model, bits, row, seed, top1(quantized, bundled_images(task, "test", tests)), seconds)


def run_all(args: argparse.Namespace) -> list[Cell]:
    jobs = [
        (model, bits, row, seed)
        for model in args.models
        for bits in args.bits
        for row in args.rows
        for seed in args.seeds
        if not (row == "rewrite rotation" and model.startswith("swin")) and (seed == args.seeds[0] or row not in FIXED)
    ]
    cells = []
    with ProcessPoolExecutor(args.workers) as pool:
        futures = [pool.submit(run_cell, *job, args.set, args.images, args.tests) for job in jobs]
        for done, future in enumerate(futures, 1):
            cells.append(future.result())
            cell = cells[-1]
            print(f"[{done}/{len(jobs)}] {cell.model} {cell.bits} {cell.row}: {cell.top1:.2f}", flush=True)
    return cells


def mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


def print_table(cells: Sequence[Cell], full_precision: dict[str, float]) -> None:
    columns = list(dict.fromkeys((cell.model, cell.bits) for cell in cells))
    print("\n| row | " + " | ".join(f"{model} {bits} | s" for model, bits in columns) + " |")
    print("|---|" + "---|---|" * len(columns))
    print("| full precision | " + " | ".join(f"{full_precision[model]:.2f} | " for model, _ in columns) + " |")
    for row in dict.fromkeys(cell.row for cell in cells):
        found = [[c for c in cells if (c.model, c.bits, c.row) == (*column, row)] for column in columns]
        texts = [
            f"{mean_and_spread([c.top1 for c in group])} | {statistics.mean(c.seconds for c in group):.0f}"
            if group
            else "– | –"
            for group in found
        ]
        print(f"| {row} | " + " | ".join(texts) + " |")


def full_precision_top1(model: str, tests: int) -> float:
    return top1(fd.load_model(model), bundled_images(BUNDLED[model].task, "test", tests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"], choices=sorted(BUNDLED))
    parser.add_argument("--bits", nargs="+", default=["w4a4", "w3a3"], help="recipes")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=4000, help="test images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe fields for every row")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    args = parser.parse_args()
    full_precision = {model: full_precision_top1(model, args.tests) for model in args.models}
    cells = run_all(args)
    print_table(cells, full_precision)
    print(json.dumps({"full_precision": full_precision, "cells": [asdict(cell) for cell in cells]}))


if __name__ == "__main__":
    main()
