"""ImageNet top-1 of quantized models beside what papers report: ViT, DeiT and Swin at W4A4 and W3A3.

    benchmarks/imagenet.sh IMAGENET
    benchmarks/imagenet.sh IMAGENET --models vit_s deit_t --bits 3 --settings presets --device cuda

Two settings: `papers` is FIMA-Q's, every tensor at the same bits but for the images (recipe `fimaq-paper`, 20,000
iterations a block: hours for each model; scales are per tensor, which runtimes execute, and not per token); `presets`
is what this package suggests (`w4a4`, `w3a3`), with patches, head and softmax at 8 bits.

Each cell of the table is a file in OUT/cells, written when it is whole. What is there for the same question is not
computed again, and a cell that was under way goes on with its next block. A cell that fails is told and does not stop
the others; exit code 1. OUT/table.md and OUT/imagenet.json hold all that is known so far.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fimaq_deploy as fd
from fimaq_deploy.data.intake import as_source, reads_of
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole
from fimaq_deploy.models.devices import find_device

MODELS = ("vit_s", "vit_b", "deit_t", "deit_s", "deit_b", "swin_s", "swin_b")
SETTINGS = ("papers", "presets")
FULL = "fp32"
TARGET = "tensorrt"

# ImageNet top-1 as published: FP32, FIMA-Q (CVPR 2025, arXiv 2506.11543) and, at 3 bits, GLF-Q (2026).
PUBLISHED: dict[str, dict[str, float]] = {
    FULL: dict(zip(MODELS, (81.39, 84.54, 72.21, 79.85, 81.80, 83.23, 85.27), strict=True)),
    "FIMA-Q 4": dict(zip(MODELS, (76.68, 83.04, 66.84, 76.87, 80.33, 81.82, 83.60), strict=True)),
    "FIMA-Q 3": dict(zip(MODELS, (64.09, 77.63, 55.55, 69.13, 76.54, 77.26, 78.82), strict=True)),
    "GLF-Q 3": dict(zip(MODELS, (67.40, 78.18, 56.48, 71.55, 77.20, 78.10, 80.45), strict=True)),
}


@dataclass(frozen=True)
class Question:
    """What a cell of the table asks. setting: `fp32` of the original, whose bits are 0."""

    model: str
    setting: str
    bits: int
    recipe: dict[str, Any]
    weights: str
    images: int
    seed: int
    validation: str

    @property
    def name(self) -> str:
        kind = self.setting if self.setting == FULL else f"w{self.bits}a{self.bits}-{self.setting}"
        return f"{self.model.rpartition(':')[2]}-{kind}"

    @property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def recipe_of(setting: str, bits: int, images: int, changes: list[str]) -> fd.Recipe:
    """The recipe of a setting; `changes` as of --set."""
    count = [f"reconstruction.images={images}"]
    if setting == "presets":
        return fd.Recipe.load(f"w{bits}a{bits}").with_settings([*count, *changes])
    fields = ("weights.bits", "activations.bits", "head.weight_bits", "head.activation_bits")
    everywhere = [f"{field}={bits}" for field in (*fields, "patch_embed.weight_bits", "attention.softmax_bits")]
    return fd.Recipe.load("fimaq-paper").with_settings([*everywhere, *count, *changes])


def questions(args: argparse.Namespace, validation: Path) -> Iterator[Question]:
    """Every cell, a model after the other."""
    common = {
        "weights": args.weights,
        "images": args.images,
        "seed": args.seed,
        "validation": str(validation.resolve()),
    }
    for model in args.models:
        yield Question(model, FULL, 0, {}, **common)
        for bits in args.bits:
            for setting in args.settings:
                recipe = recipe_of(setting, bits, args.images, args.set).model_dump(mode="json")
                yield Question(model, setting, bits, recipe, **common)


def answer(question: Question, train: Path, validation: Path, out: Path, device: str) -> dict[str, Any]:
    """Measure one cell. Top-1 in percent, seconds of learning and of evaluation."""
    model = fd.load_model(question.model, question.weights, seed=question.seed).to(find_device(device))
    images = as_source(validation, reads_of(model))
    started, learning = time.perf_counter(), 0.0
    measured: Any = model
    state = out / "under-way" / question.name
    if question.setting != FULL:
        recipe = fd.Recipe.model_validate(question.recipe)
        measured = fd.quantize(model, train, recipe, TARGET, seed=question.seed, device=device, resume=state)
        learning = time.perf_counter() - started
    top1 = accuracy(measured, images)
    shutil.rmtree(state, ignore_errors=True)
    total = time.perf_counter() - started
    return {"top1": top1, "learning_seconds": learning, "seconds": total, "evaluation_images": images.count}


def accuracy(model: Any, images: ImageSource) -> float:
    found = fd.evaluate(model, images, task="classes").top1
    if found is None:
        raise UserError(f"{images.description} has no labels: give a folder for each class")
    return found


def kept(file: Path, question: Question) -> dict[str, Any] | None:
    """An earlier answer to the same question."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("identity") == question.identity else None


def folders(root: Path) -> tuple[Path, Path]:
    """Of calibration and of evaluation.

    Raises:
        UserError: the folder is not laid out as ImageNet is.
    """
    found = []
    for name in ("train", "val"):
        folder = root / name
        if not folder.is_dir() or not any(each.is_dir() for each in folder.iterdir()):
            raise UserError(f"{root}: expected {name}/ with a folder for each class, such as {name}/n01440764")
        found.append(folder)
    return found[0], found[1]


def table(args: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    """Models down, settings across; what is published beside what was measured."""
    columns: list[tuple[str, str, str]] = [("FP32", FULL, ""), ("FP32 published", "", FULL)]
    for bits in args.bits:
        columns += [(f"W{bits}A{bits} {setting}", f"w{bits}a{bits}-{setting}", "") for setting in args.settings]
        columns += [(f"W{bits}A{bits} {key[:-2]}", "", key) for key in PUBLISHED if key.endswith(f" {bits}")]
    lines = [["model", *(title for title, _, _ in columns)], ["---", *("---:" for _ in columns)]]
    for model in args.models:
        short = model.rpartition(":")[2]
        cells = [
            number(PUBLISHED[published].get(model) if published else found.get(f"{short}-{own}", {}).get("top1"))
            for _, own, published in columns
        ]
        lines.append([short, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main() -> int:
    args = arguments().parse_args()
    train, validation = folders(args.imagenet)
    asked = list(questions(args, validation))
    found: dict[str, dict[str, Any]] = {}
    failed = []
    (args.out / "cells").mkdir(parents=True, exist_ok=True)
    for done, question in enumerate(asked):
        file = args.out / "cells" / f"{question.name}.json"
        known = kept(file, question)
        if known is None:
            print(f"{done}/{len(asked)} {question.name}", file=sys.stderr, flush=True)
            try:
                known = {**asdict(question), **answer(question, train, validation, args.out, args.device)}
            except UserError as error:
                print(f"error: {question.name}: {error}", file=sys.stderr)
                failed.append(question.name)
                continue
            known["identity"] = question.identity
            write_whole(file, json.dumps(known, indent=1).encode())
        found[question.name] = known
        write_whole(args.out / "table.md", table(args, found).encode())
    summary = {"cells": found, "published": PUBLISHED, "failed": failed}
    write_whole(args.out / "imagenet.json", json.dumps(summary, indent=1).encode())
    print(table(args, found), end="")
    return 1 if failed else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("build/imagenet"))
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--bits", nargs="+", type=int, default=(4, 3), choices=(3, 4))
    parser.add_argument("--settings", nargs="+", default=SETTINGS, choices=SETTINGS)
    parser.add_argument("--images", type=int, default=1024, help="to calibrate on, drawn from train/")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="a recipe field of every cell"
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
