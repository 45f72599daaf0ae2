"""What eight and fewer bits cost a real DINOv2 ViT-S/14 on real pictures, with rewrites and searches on and off.

    python benchmarks/outliers.py --weights dino.safetensors --cells build/outliers.jsonl
    python benchmarks/outliers.py ... --images /usr/share/datasets/fashion-mnist
    python benchmarks/outliers.py ... --runs "w8a8 rewrites.values=true" "w4a4 scale_search.softmax=products"
    python benchmarks/outliers.py --model vit_shapes --cells build/outliers.jsonl --runs w4a4 "w4a4 rewrites=auto"

Each run is a preset and fields to replace; nothing is learned unless `reconstruction.iterations` is among them. Cosine
of the feature and recall@1 (whether the nearest other picture stays the same) against full precision, on pictures that
calibration does not see: photographs, or those of Fashion-MNIST, whose four files are in a folder (Debian:
dataset-fashion-mnist). Of the shipped models the figures are top-1, agreement with full precision and KL. What
`rewrites=auto` took is in the cell. A finished cell is a line of --cells at once, and a cell that is there is not run
again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from cells import keep, kept
from dinov2 import prepared, read_set
from formats import dinov2, of_classes, of_features, on_photographs, outputs, task_of
from torch import Tensor, nn

import fimaq_deploy as fd

SEARCHES = ("", "scale_search.softmax=products", "rewrites.values=true")
CHANGES = (*SEARCHES, " ".join(SEARCHES[1:]), "rewrites.norm=false", "rewrites.heads=true", "rewrites.rotation=true")
RUNS = [f"{preset} {change}".strip() for preset in ("w8a8", "w4a8", "w6a6", "w4a4") for change in CHANGES]
UNLEARNED = ("reconstruction.iterations=0", "tuning.iterations=0")
PHOTOGRAPHS = "photographs"


def on_fashion(weights: Path, folder: Path, calibration: int, tests: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The encoder, and the first pictures of both parts of Fashion-MNIST."""
    parts = read_set(folder, "train")[0][:calibration], read_set(folder, "t10k")[0][:tests]
    train, test = (prepared(part, torch.device("cpu")) for part in parts)
    return dinov2(weights), train, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dinov2", help="dinov2, which needs --weights, or a shipped model")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", default=PHOTOGRAPHS, help="photographs, or the folder of Fashion-MNIST")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--tests", type=int, default=32)
    parser.add_argument("--target", default="tensorrt")
    args = parser.parse_args()
    if args.model == "dinov2" and args.weights is None:
        parser.error("--weights: expected the file of the encoder")
    args.cells.parent.mkdir(parents=True, exist_ok=True)
    where = args.model
    if args.model == "dinov2":
        where = PHOTOGRAPHS if args.images == PHOTOGRAPHS else "fashion-mnist"
    sizes = {
        "images": where,
        "target": args.target,
        "calibration": args.calibration,
        "tests": args.tests,
    }
    done = [{name: cell[name] for name in ("run", *sizes)} for cell in kept(args.cells)]
    labels = None
    if where == PHOTOGRAPHS:
        model, images, tests = on_photographs(args.weights, args.calibration, args.tests)
    elif where == "fashion-mnist":
        model, images, tests = on_fashion(args.weights, Path(args.images), args.calibration, args.tests)
    else:
        known = argparse.Namespace(images=args.calibration, tests=args.tests)
        model, images, tests, labels = task_of(where, known)
    exact = outputs(model, tests, batch=8)
    for run in args.runs:
        if {"run": run, **sizes} in done:
            continue
        preset, *settings = run.split()
        recipe = fd.Recipe.load(preset).with_settings([*UNLEARNED, *settings])
        quantized = fd.quantize(model, images, recipe, args.target)
        found = outputs(quantized, tests, batch=8)
        figures = of_features(found, exact) if labels is None else of_classes(found, exact, labels)
        cell = {"run": run, **sizes, **figures}
        if quantized.choice is not None:
            cell |= {"taken": quantized.choice.taken, "trials": [asdict(one) for one in quantized.choice.trials]}
        keep(args.cells, cell)
        print(f"| {run} | {' | '.join(f'{one:.4f}' for one in figures.values())} |", cell.get("taken", ""), flush=True)


if __name__ == "__main__":
    main()
