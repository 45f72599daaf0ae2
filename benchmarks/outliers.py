"""What eight and fewer bits cost a real DINOv2 ViT-S/14 on photographs, with rewrites and searches on and off.

    python benchmarks/outliers.py --weights dino.safetensors --cells build/outliers.jsonl
    python benchmarks/outliers.py ... --runs "w8a8 rewrites.values=true" "w4a4 scale_search.softmax=products"

Each run is a preset and fields to replace; nothing is learned unless `reconstruction.iterations` is among them. Cosine
of the feature and recall@1 (whether the nearest other picture stays the same) against full precision, on photographs
that calibration does not see. A finished cell is a line of --cells at once, and a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import timm
import torch
from photographs import normalized, photographs
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import fimaq_deploy as fd

SEARCHES = ("", "scale_search.softmax=products", "rewrites.values=true")
CHANGES = (*SEARCHES, " ".join(SEARCHES[1:]), "rewrites.norm=false", "rewrites.heads=true")
RUNS = [f"{preset} {change}".strip() for preset in ("w8a8", "w4a8", "w6a6", "w4a4") for change in CHANGES]
UNLEARNED = ("reconstruction.iterations=0", "tuning.iterations=0")


def nearest(features: Tensor) -> Tensor:
    """For each row the other row of largest cosine."""
    unit = F.normalize(features, dim=1)
    return (unit @ unit.T).fill_diagonal_(-2).argmax(1)


@torch.inference_mode()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(part) for part in images.split(8)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--tests", type=int, default=32)
    parser.add_argument("--target", default="tensorrt")
    args = parser.parse_args()
    args.cells.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"target": args.target, "calibration": args.calibration, "tests": args.tests}
    lines = args.cells.read_text().splitlines() if args.cells.exists() else []
    done = [{name: cell[name] for name in ("run", *sizes)} for cell in map(json.loads, lines)]
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(args.weights).items()})
    images = normalized(photographs("calibration", args.calibration))
    tests = normalized(photographs("test", args.tests))
    exact = answers(model, tests)
    for run in args.runs:
        if {"run": run, **sizes} in done:
            continue
        preset, *settings = run.split()
        recipe = fd.Recipe.load(preset).with_settings([*UNLEARNED, *settings])
        found = answers(fd.quantize(model, images, recipe, args.target), tests)
        cosine = float(F.cosine_similarity(found, exact).mean())
        recall = 100 * float((nearest(found) == nearest(exact)).float().mean())
        cell = {"run": run, **sizes, "cosine": cosine, "recall": recall}
        with args.cells.open("a") as file:
            file.write(json.dumps(cell) + "\n")
        print(f"| {run} | {cosine:.4f} | {recall:.1f} |", flush=True)


if __name__ == "__main__":
    main()
