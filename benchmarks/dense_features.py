"""What quantization costs an encoder whose features are used: neighbours, probes and correspondences of a DINOv2-S.

    python benchmarks/dense_features.py --weights dino.safetensors --images /usr/share/datasets/fashion-mnist \
        --cells build/dense.jsonl

Fashion-MNIST, enlarged: the first training images are the bank, those that follow calibrate, the first test images are
measured. Class tokens are judged by classes, patch tokens by maps of classes: the silhouette of the garment (pixels
above 10 %) has its class, the rest is background. Each run is a preset and fields to replace, and what a ruined model
would answer stands beside them: `constant`, the mean of the original's answers for every image, and `shuffled`, the
answers of the next image. A finished run is a line of --cells at once, and is not run again.

    python benchmarks/dense_features.py --model vit_shapes --cells build/dense.jsonl

does the same with the shipped ViT without its classifier, on its own pictures; their maps say which pixels are bright.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cells import keep, kept
from dinov2 import MEAN, STD, read_set
from formats import dinov2
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import shipped_images

UNLEARNED = "reconstruction.iterations=0 tuning.iterations=0"
LEARNED = "reconstruction.iterations=20 tuning.iterations=0"
RUINED = f"w3a3 scale_search.candidates=1 {UNLEARNED}"
RUNS = [
    "original",
    "constant",
    "shuffled",
    *(f"{preset} {UNLEARNED}" for preset in ("w8a8", "w8a8-fp8attention", "fp8", "w4a8", "w4a4")),
    *(f"{preset} {LEARNED}" for preset in ("w8a8", "w8a8-fp8attention", "fp8")),
    RUINED,
]
BACKGROUND = 0


class Remembered:
    """Tokens of images that were seen are not computed again: they are judged twice, as vectors and as maps."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.known = model, dict[str, NDArray[np.float32]]()

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        key = hashlib.sha256(images.tobytes()).hexdigest()
        if key not in self.known:
            with torch.inference_mode():
                self.known[key] = self.model(torch.from_numpy(images)).float().numpy()
        return self.known[key]

    def classes(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self(images)[:, 0]

    def patches(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self(images)[:, 1:]


class Constant(nn.Module):
    def __init__(self, tokens: NDArray[np.float32]) -> None:
        super().__init__()
        self.mean = torch.from_numpy(tokens.mean(0))

    def forward(self, images: Tensor) -> Tensor:
        return self.mean.expand(len(images), -1, -1)


class Shuffled(nn.Module):
    """The answer to another image of the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.roll(1, 0))


def prepared(images: Tensor, size: int) -> Tensor:
    """(N, 28, 28) bytes to (N, 3, size, size) as the encoder takes them."""
    large = F.interpolate(images.float()[:, None] / 255, (size, size), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (large.clamp(0, 1).expand(-1, 3, -1, -1) - mean) / std


def silhouettes(images: Tensor, labels: Tensor, size: int) -> Tensor:
    """(N, size, size): one more than the class where the garment is."""
    large = F.interpolate(images.float()[:, None] / 255, (size, size), mode="bilinear")[:, 0]
    return torch.where(large > 0.1, labels.long()[:, None, None] + 1, BACKGROUND)


class Labelled(NamedTuple):
    """Images (N, 3, H, W), their classes (N,), and a class for each of their pixels (N, H, W)."""

    images: Tensor
    classes: Tensor
    patches: Tensor


def of_fashion(args: argparse.Namespace) -> tuple[Any, Labelled, Tensor, Labelled]:
    """The encoder, the bank, what calibrates, and what is measured."""
    (train, classes), (tests, truth) = (read_set(args.images, part) for part in ("train", "t10k"))
    bank, shown = (
        Labelled(prepared(images, args.size), labels.long(), silhouettes(images, labels, args.size))
        for images, labels in ((train[: args.bank], classes[: args.bank]), (tests[: args.tests], truth[: args.tests]))
    )
    model: Any = dinov2(args.weights)
    model.set_input_size((args.size, args.size))
    return model, bank, prepared(train[args.bank : args.bank + args.calibration], args.size), shown


def of_shapes(args: argparse.Namespace) -> tuple[Any, Labelled, Tensor, Labelled]:
    def some(part: Any, start: int, stop: int) -> Labelled:
        batches = list(shipped_images(args.model, part, stop).batches())
        images = torch.cat([batch.images for batch in batches])[start:stop]
        labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])[start:stop]
        return Labelled(images, labels, (images.mean(1) > 0).long())

    model: Any = fd.load_model(args.model)
    model.reset_classifier(0)
    images = some("calibration", args.bank, args.bank + args.calibration).images
    return model, some("calibration", 0, args.bank), images, some("test", 0, args.tests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dinov2", choices=["dinov2", "vit_shapes"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--size", type=int, default=98)
    parser.add_argument("--bank", type=int, default=400)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--tests", type=int, default=300)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cells.parent.mkdir(parents=True, exist_ok=True)
    sizes = {name: getattr(args, name) for name in ("model", "size", "bank", "calibration", "tests")}
    done = [{name: cell.get(name, "dinov2") for name in ("run", *sizes)} for cell in kept(args.cells)]
    model, shelf, images, tests = of_fashion(args) if args.model == "dinov2" else of_shapes(args)
    model.global_pool, model.fc_norm = "", nn.Identity()
    model.eval()
    original, shown = Remembered(model), tests.images

    def of(run: str) -> nn.Module:
        if run == "original":
            return model
        if run == "shuffled":
            return Shuffled(model)
        if run == "constant":
            return Constant(np.concatenate([original(part.numpy()) for part in shown.split(32)]))
        preset, *settings = run.split()
        return fd.quantize(model, images, fd.Recipe.load(preset).with_settings(settings), "tensorrt", sm=89)

    for run in args.runs:
        if {"run": run, **sizes} in done:
            continue
        own, figures = Remembered(of(run)), dict[str, Any]()
        for name, task in (("classes", "embedding"), ("patches", "dense")):
            mine, theirs = getattr(own, name), getattr(original, name)
            labels, known = getattr(tests, name), getattr(shelf, name)
            found = fd.evaluate(mine, shown, labels=labels, against=theirs, bank=(shelf.images, known), task=task)
            figures |= {f"{name} {one.figure.name}": (one.value, one.interval) for one in found.figures}
        keep(args.cells, {"run": run, **sizes, "figures": figures})
        print(run, {name: round(value, 4) for name, (value, _) in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
