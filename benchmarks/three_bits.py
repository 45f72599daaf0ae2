"""Every tensor at 3 bits, the papers' setting: what brings accuracy back, in rows that each change one thing.

    python benchmarks/three_bits.py --cells build/three-bits.jsonl
    python benchmarks/three_bits.py --cells build/three-bits.jsonl --models swin_shapes --rows all heads --seeds 0 1 2
    python benchmarks/three_bits.py --cells build/three-bits.jsonl --models dinov2 --weights dino.safetensors \
        --images /usr/share/datasets/fashion-mnist --size 70 --calibration 64 --tests 400

Weights, activations, attention weights, patch embedding and head have 3 bits; scales are per tensor for activations and
per output channel for weights; target tensorrt. A row is what `ROWS` changes of preset w3a3 in that setting; one that
starts with a preset's name is that preset, so that what wins can be tried on it. dinov2 is a real encoder with a linear
classifier for Fashion-MNIST that is fitted here (see `dinov2.py`). A finished cell is a line of --cells at once, and a
cell that is there is not run again. Prints the table of all cells of these sizes at the end.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dinov2
import timm
import torch
from accuracy import top1
from cells import keep, kept
from safetensors.torch import load_file
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.models.bundled import BUNDLED

ENCODER = "dinov2"
PRODUCTS, VALUES = "scale_search.softmax=products", "rewrites.values=true"
LONGER = "reconstruction.iterations=400"
ROWS: dict[str, tuple[str, ...]] = {
    "all": (),
    "searched scales": ("reconstruction.iterations=0",),
    "iterations x4": (LONGER,),
    "softmax by products": (PRODUCTS,),
    "values": (VALUES,),
    "products, values": (PRODUCTS, VALUES),
    "heads": ("rewrites.heads=true",),
    "rotation": ("rewrites.rotation=true",),
    "no norm": ("rewrites.norm=false",),
    "joint tuning 100": ("tuning.iterations=100",),
    "qdrop 0": ("reconstruction.qdrop=0",),
    "qdrop 0.5": ("reconstruction.qdrop=0.5",),
    "scales x4": ("reconstruction.scale_lr=0.012",),
    "biases x4": ("reconstruction.other_lr=0.004",),
    "weights x0.3": ("reconstruction.weight_lr=0.01",),
    "adaround": ("reconstruction.rounding=adaround",),
    "least squares": ("reconstruction.loss=least_squares",),
    "feature": ("reconstruction.loss=feature",),
    "mse": ("reconstruction.loss=mse",),
    "softmax at 8 bits": ("attention.softmax_bits=8",),
    "patches and head at 8 bits": tuple(
        f"{edge}.{bits}=8" for edge in ("patch_embed", "head") for bits in ("weight_bits", "activation_bits")
    ),
}
PRESETS = ("w3a3", "w4a4")


def recipe_of(row: str, settings: Sequence[str]) -> fd.Recipe:
    """Of a row, or of a preset and a row behind it."""
    preset, _, rest = row.partition(": ")
    if preset in PRESETS:
        return fd.Recipe.load(preset).with_settings([*settings, *ROWS[rest or "all"]])
    return fd.Recipe.load("w3a3").with_settings([*dinov2.EVERY_TENSOR, *settings, *ROWS[row]])


class Task:
    """A model, calibration images, and how its answers are judged."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self._tests, self._fitted = args.tests, name == ENCODER
        if self._fitted:
            self.model, self.images, self._pictures, self._labels = on_fashion(args)
        else:
            task = BUNDLED[name].task
            self.model = fd.load_model(name)
            self.images = bundled_images(task, "calibration", args.calibration).take(args.calibration)
            self._data = bundled_images(task, "test", args.tests)

    def top1(self, model: Any) -> float:
        """In percent of the test images."""
        if not self._fitted:
            return top1(model, self._data)
        found = dinov2.answers(model, self._pictures, torch.device("cpu"), batch=32).argmax(1)
        return 100 * float((found == self._labels).float().mean())


def on_fashion(args: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The encoder with its classifier, calibration images, and test pictures with their labels."""
    dinov2.SIZE, cpu = args.size, torch.device("cpu")
    model: Any = timm.create_model(dinov2.NAME, img_size=224, num_classes=0).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(args.weights).items()})
    model.set_input_size((args.size, args.size))
    train, labels = dinov2.read_set(args.images, "train")
    pictures, truth = (part[: args.tests] for part in dinov2.read_set(args.images, "t10k"))
    torch.manual_seed(0)
    dinov2.with_classifier(model, train[: args.probe], labels[: args.probe].long(), cpu)
    images = dinov2.prepared(train[args.probe : args.probe + args.calibration], cpu)
    return model, images, pictures, truth


def summary(cells: Sequence[dict[str, Any]]) -> str:
    """Mean top-1 of each row, ± standard deviation over seeds, and how many."""
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    lines = [f"| row | {' | '.join(models)} |", "|---|" + "---|" * len(models)]
    for row in dict.fromkeys(cell["row"] for cell in cells):
        texts = []
        for model in models:
            found = [cell["top1"] for cell in cells if (cell["row"], cell["model"]) == (row, model)]
            spread = f" ± {statistics.stdev(found):.2f} ({len(found)})" if len(found) > 1 else ""
            texts.append(f"{statistics.mean(found):.2f}{spread}" if found else "")
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe fields for every row")
    parser.add_argument("--weights", type=Path, help="of dinov2")
    parser.add_argument("--images", type=Path, help="the folder of Fashion-MNIST, for dinov2")
    parser.add_argument("--size", type=int, default=98, help="pixels, for dinov2")
    parser.add_argument("--probe", type=int, default=1000, help="images that fit the classifier of dinov2")
    args = parser.parse_args()
    args.cells.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"calibration": args.calibration, "tests": args.tests, "set": args.set}
    for name in args.models:
        where = sizes | ({"size": args.size, "probe": args.probe} if name == ENCODER else {})
        done = [
            {key: cell[key] for key in ("model", "row", "seed", *where)}
            for cell in kept(args.cells)
            if all(key in cell for key in where)
        ]
        jobs = [(row, seed) for row in ("full precision", *args.rows) for seed in args.seeds]
        jobs = [(row, seed) for row, seed in jobs if {"model": name, "row": row, "seed": seed, **where} not in done]
        if name.startswith("swin"):
            jobs = [(row, seed) for row, seed in jobs if row != "rotation"]  # its stream has no one width
        task = Task(name, args) if jobs else None
        for row, seed in jobs:
            if row == "full precision" and seed != args.seeds[0]:
                continue
            assert task is not None
            model: Any = task.model
            if row != "full precision":
                model = fd.quantize(task.model, task.images, recipe_of(row, args.set), "tensorrt", seed=seed)
            keep(args.cells, {"model": name, "row": row, "seed": seed, **where, "top1": task.top1(model)})
            print(f"{name} {row} {seed}: {kept(args.cells)[-1]['top1']:.2f}", flush=True)
    print(summary([c for c in kept(args.cells) if all(c.get(key) == value for key, value in sizes.items())]))


if __name__ == "__main__":
    main()
