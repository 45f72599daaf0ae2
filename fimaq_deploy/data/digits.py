"""The handwritten digits that come with scikit-learn, shipped as one small array file.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, the
1,797 test images as scikit-learn redistributes them (CC BY 4.0). 8×8 grey images of 17 levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.models.bundled import DIGITS

FILE = Path(__file__).parent / "digits.npz"
IMAGE_SIZE = 16
CLASSES = DIGITS

Split = Literal["train", "calibration", "test"]
_BOUNDS: dict[str, tuple[int, int]] = {"train": (0, 941), "calibration": (941, 1197), "test": (1197, 1797)}


def load(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One split: 941 images for training, 256 for calibration, 600 for testing.

    Returns images as uint8 (count, 1, 16, 16), each source pixel doubled, and labels as int64 (count,).
    """
    with np.load(FILE, allow_pickle=False) as file:
        pixels, labels = file["pixels"], file["labels"]
    order = np.random.default_rng(1998).permutation(len(labels))[slice(*_BOUNDS[split])]
    images = (pixels[order].astype(np.uint16) * 255 // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return images.repeat(2, axis=2).repeat(2, axis=3), labels[order].astype(np.int64)
