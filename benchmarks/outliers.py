"""What eight and fewer bits cost a real DINOv2 ViT-S/14 on real pictures, with rewrites and searches on and off.

    python benchmarks/outliers.py --weights dino.safetensors --cells build/outliers.jsonl
    python benchmarks/outliers.py ... --images /usr/share/datasets/fashion-mnist
    python benchmarks/outliers.py ... --runs "w8a8 rewrites.values=true" "w4a4 scale_search.softmax=products"

Each run is a preset and fields to replace; nothing is learned unless `reconstruction.iterations` is among them. Cosine
of the feature and recall@1 (whether the nearest other picture stays the same) against full precision, on pictures that
calibration does not see: photographs, or those of Fashion-MNIST, whose four files are in a folder (Debian:
dataset-fashion-mnist). A finished cell is a line of --cells at once, and a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from cells import keep, kept
from dinov2 import prepared, read_set
from formats import dinov2, of_features, on_photographs, outputs
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
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", default=PHOTOGRAPHS, help="photographs, or the folder of Fashion-MNIST")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--tests", type=int, default=32)
    parser.add_argument("--target", default="tensorrt")
    args = parser.parse_args()
    args.cells.parent.mkdir(parents=True, exist_ok=True)
    photographed = args.images == PHOTOGRAPHS
    sizes = {
        "images": PHOTOGRAPHS if photographed else "fashion-mnist",
        "target": args.target,
        "calibration": args.calibration,
        "tests": args.tests,
    }
    done = [{name: cell[name] for name in ("run", *sizes)} for cell in kept(args.cells)]
    if photographed:
        model, images, tests = on_photographs(args.weights, args.calibration, args.tests)
    else:
        model, images, tests = on_fashion(args.weights, Path(args.images), args.calibration, args.tests)
    exact = outputs(model, tests, batch=8)
    for run in args.runs:
        if {"run": run, **sizes} in done:
            continue
        preset, *settings = run.split()
        recipe = fd.Recipe.load(preset).with_settings([*UNLEARNED, *settings])
        figures = of_features(outputs(fd.quantize(model, images, recipe, args.target), tests, batch=8), exact)
        cell = {"run": run, **sizes, "cosine": figures["cosine"], "recall": figures["recall@1 %"]}
        keep(args.cells, cell)
        print(f"| {run} | {cell['cosine']:.4f} | {cell['recall']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
