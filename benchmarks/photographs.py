"""Real photographs without a download: those that scikit-image and scikit-learn ship, cut into many pictures.

    python benchmarks/photographs.py --out build/photographs

Fifteen photographs, split so that no one of them is in both parts: `calibration` and `test`. A picture is a square cut
at random (a quarter of the shorter side to all of it), mirrored or not, resized. The same arguments give the same
pictures, and `count` pictures begin with those of any smaller count. The command writes both parts as PNG, to be
looked at.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from PIL import Image
from torch import Tensor

Part = Literal["calibration", "test"]
NAMES: dict[Part, tuple[str, ...]] = {
    "calibration": ("astronaut", "flower", "chelsea", "motorcycle", "coins", "hubble_deep_field", "grass"),
    "test": ("china", "coffee", "rocket", "camera", "retina", "brick", "moon", "gravel"),
}
LEAST_SIDE = 0.25  # of the shorter side of its photograph
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def photograph(name: str) -> Image.Image:
    """One photograph in colour as its package ships it."""
    if name in ("china", "flower"):
        pixels = sklearn.datasets.load_sample_image(f"{name}.jpg")
    elif name == "motorcycle":
        folder = Path(skimage.data.__file__).parent
        pixels = np.asarray(Image.open(folder / "motorcycle_left.png"))
    else:
        pixels = getattr(skimage.data, name)()
    return Image.fromarray(pixels).convert("RGB")


def cut(name: str, size: int, chance: np.random.Generator) -> np.ndarray:
    """(size, size, 3) bytes of one photograph."""
    whole = photograph(name)
    side = round(min(whole.size) * chance.uniform(LEAST_SIDE, 1))
    left, top = (int(chance.integers(0, length - side + 1)) for length in whole.size)
    square = whole.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = np.asarray(square)
    return pixels[:, ::-1] if chance.random() < 0.5 else pixels


def photographs(part: Part, count: int, size: int = 224, seed: int = 0) -> Tensor:
    """(count, 3, size, size) bytes, every photograph of the part in turn."""
    names = NAMES[part]
    chance = np.random.default_rng([seed, list(NAMES).index(part)])
    pictures = np.stack([cut(names[i % len(names)], size, chance) for i in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def normalized(pictures: Tensor, mean: tuple[float, ...] = IMAGENET[0], std: tuple[float, ...] = IMAGENET[1]) -> Tensor:
    """Bytes to the floats that an encoder takes."""
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pictures.float() / 255 - middle) / spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32, help="pictures of each part")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    for part in NAMES:
        folder = args.out / part
        folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(photographs(part, args.count, args.size)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i:04}.png")


if __name__ == "__main__":
    main()
