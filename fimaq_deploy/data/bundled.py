"""The images of the bundled models' tasks."""

from __future__ import annotations

from typing import Literal

import torch

from fimaq_deploy.data import digits, shapes
from fimaq_deploy.data.memory import Scaled
from fimaq_deploy.data.source import ImageSource, require_positive
from fimaq_deploy.models.bundled import Task

SHAPES_COUNT = {"train": 65536, "calibration": 2048, "test": 4000}


def bundled_images(task: Task, split: Literal["train", "calibration", "test"], count: int | None = None) -> ImageSource:
    """The first `count` labelled images of a bundled task, in [-1, 1].

    digits has at most 941, 256 and 600 images to train, calibrate and test; shapes has any number, and 65,536, 2,048
    and 4,000 where `count` is None.

    Raises:
        UserError: count is not positive.
    """
    if count is not None:
        require_positive(count)
    pixels, labels = digits.load(split) if task == "digits" else shapes.generate(split, count or SHAPES_COUNT[split])
    images, truth = torch.from_numpy(pixels[:count]), torch.from_numpy(labels[:count])
    return Scaled(images, truth, f"bundled {task}, {split} split")
