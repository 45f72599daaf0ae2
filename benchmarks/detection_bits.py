"""What low bits in the encoder cost a detector and a segmenter, and which way to learn is worth what.

    python benchmarks/detection_bits.py
    python benchmarks/detection_bits.py --models detr_shapes --bits w4a4 --rows mse dplr --seeds 0 --iterations 100
    python benchmarks/detection_bits.py --cells cells.jsonl  # continues where it was stopped

The encoder inside of each shipped model is quantized, the rest stays as it is. Rows differ from their bits' recipe
in what their name says: `mse` and `dplr` learn block by block without joint tuning, on what the encoder hands out;
`divergence` is `dplr` of what the whole model answers (classes and boxes, or the class of each pixel), pulled back
through the rest; `recipe` is the preset as it is, joint tuning too where it has one for an encoder inside. All rows of
the first seed come before the others. Prints, for each, box AP, AP50 and mask AP or mIoU, in percent, the share of the
original's answers that are kept, and seconds of one core; mean and, behind ±, standard deviation over seeds. Ends in
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from cells import keep, kept

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import shipped_images
from fimaq_deploy.models.bundled import INSIDE
from fimaq_deploy.models.detectors import Arranged

BLOCKS_ALONE = ("tuning.iterations=0",)
NOTHING_LEARNED = ("reconstruction.iterations=0", *BLOCKS_ALONE)

ROWS: dict[str, tuple[str, ...]] = {
    "max calibration": ("scale_search.candidates=1", *NOTHING_LEARNED),
    "scale search": NOTHING_LEARNED,
    "mse": ("reconstruction.loss=mse", *BLOCKS_ALONE),
    "dplr": ("reconstruction.loss=dplr", *BLOCKS_ALONE),
    "divergence": ("reconstruction.loss=dplr", *BLOCKS_ALONE),
    "recipe": (),
}
FIXED = ("max calibration", "scale search")  # the seed changes nothing
Job = tuple[str, str, str, int]
FIGURES = ("ap", "ap50", "mask_ap", "miou", "agreement")


@dataclass(frozen=True)
class Cell:
    """One run. figures: in percent, by their names in reports; seconds: of quantizing, on one core."""

    model: str
    bits: str
    row: str
    seed: int
    figures: dict[str, float]
    seconds: float


def figures_of(
    model: torch.nn.Module, name: str, tests: int, against: torch.nn.Module | None = None
) -> dict[str, float]:
    images = shipped_images(name, "test", tests)
    task = "segmentation" if INSIDE[name].task == "maps" else None
    found = fd.evaluate(Arranged(model), images, task=task, against=None if against is None else Arranged(against))
    return {one.figure.name: one.value for one in found.figures if one.figure.name in FIGURES}


def run_cell(model: str, bits: str, row: str, seed: int, args: argparse.Namespace) -> Cell:
    steps = () if args.iterations is None else (f"reconstruction.iterations={args.iterations}",)
    recipe = fd.Recipe.load(bits).with_settings([f"reconstruction.images={args.images}", *steps, *ROWS[row]])
    network = fd.load_model(model)
    started = time.process_time()
    images = shipped_images(model, "calibration", args.images)
    answers = "classes" if INSIDE[model].task == "maps" else "detections"
    judge = answers if row == "divergence" else None
    quantized = fd.quantize(network, images, recipe, target=args.target, seed=seed, divergence=judge)
    seconds = time.process_time() - started
    return Cell(model, bits, row, seed, figures_of(quantized.inside(network), model, args.tests, network), seconds)


def finished(path: Path | None) -> dict[Job, Cell]:
    """What an earlier call wrote; with other images, tests or iterations it belongs into another file."""
    cells = [Cell(**cell) for cell in kept(path)]
    return {(cell.model, cell.bits, cell.row, cell.seed): cell for cell in cells}


def mean_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def print_tables(cells: Sequence[Cell], original: dict[str, dict[str, float]]) -> None:
    for model, own in original.items():
        names = [name for name in FIGURES if name in own or name == "agreement"]
        print(f"\n{model}\n\n| bits | row | {' | '.join(names)} | s |")
        print("|---|---|" + "---:|" * (len(names) + 1))
        print(f"| FP32 | original | {' | '.join(f'{own[name]:.2f}' if name in own else '' for name in names)} | |")
        for bits, row in dict.fromkeys((cell.bits, cell.row) for cell in cells if cell.model == model):
            group = [cell for cell in cells if (cell.model, cell.bits, cell.row) == (model, bits, row)]
            texts = [mean_and_spread([cell.figures[name] for cell in group]) for name in names]
            seconds = statistics.mean(cell.seconds for cell in group)
            print(f"| {bits} | {row} | {' | '.join(texts)} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(INSIDE), choices=list(INSIDE))
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w4a8", "w4a4"], help="recipes")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=500, help="test images")
    parser.add_argument("--iterations", type=int, help="of each block; default: the recipe's")
    parser.add_argument("--target", default="tensorrt", help="whose rules the grids follow")
    parser.add_argument("--cells", type=Path, help="a file of one line each, written at once and not run again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    original = {model: figures_of(fd.load_model(model), model, args.tests) for model in args.models}
    jobs = [
        (model, bits, row, seed)
        for seed in args.seeds
        for model in args.models
        for bits in args.bits
        for row in args.rows
        if seed == args.seeds[0] or row not in FIXED
    ]
    cells, done = [], finished(args.cells)
    for number, job in enumerate(jobs, 1):
        cells.append(done[job] if job in done else run_cell(*job, args))
        told = ", ".join(f"{name} {value:.2f}" for name, value in cells[-1].figures.items())
        print(f"[{number}/{len(jobs)}] {' '.join(map(str, job))}: {told}, {cells[-1].seconds:.0f} s", flush=True)
        if job not in done:
            keep(args.cells, asdict(cells[-1]))
    print_tables(cells, original)
    print(json.dumps({"original": original, "cells": [asdict(cell) for cell in cells]}))


if __name__ == "__main__":
    main()
