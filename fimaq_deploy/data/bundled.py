"""The images of the bundled models' tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fimaq_deploy.data import digits, scenes, shapes
from fimaq_deploy.data.memory import Scaled
from fimaq_deploy.data.objects import pack_objects
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource, require_positive
from fimaq_deploy.models.bundled import SHIPPED, Task

Split: TypeAlias = Literal["train", "calibration", "test"]

SHAPES_COUNT = {"train": 65536, "calibration": 2048, "test": 4000}
SCENES_COUNT = {"train": 16384, "calibration": 1024, "test": 500}


def bundled_images(task: Task, split: Split, count: int | None = None, before: int = 0) -> ImageSource:
    """The first `count` labelled images of a bundled task, in [-1, 1].

    digits has at most 941, 256 and 600 images to train, calibrate and test; shapes has any number, and 65,536, 2,048
    and 4,000 where `count` is None. Of scenes, labelled with objects, and of maps, the same pictures labelled with the
    class of each pixel, there is any number too, and 16,384, 1,024 and 500.
    before: labels of a model before the first class of scenes, such as torchvision's background.

    Raises:
        UserError: count is not positive.
    """
    if count is not None:
        require_positive(count)
    if task in ("scenes", "maps"):
        found = scenes.generate(split, count or SCENES_COUNT[split])
        return Pictures(found, task == "maps", before, f"bundled scenes, {split} split")
    pixels, labels = digits.load(split) if task == "digits" else shapes.generate(split, count or SHAPES_COUNT[split])
    images, truth = torch.from_numpy(pixels[:count]), torch.from_numpy(labels[:count])
    return Scaled(images, truth, f"bundled {task}, {split} split")


def shipped_images(name: str, split: Split, count: int | None = None) -> ImageSource:
    """The images that a shipped model was made for, labelled as it answers."""
    model = SHIPPED[name]
    return bundled_images(model.task, split, count, len(model.before))


@dataclass(frozen=True, eq=False)
class Pictures(ImageSource):
    """Scenes with their objects as labels, packed as `data.objects` does, or with the maps of their classes."""

    found: scenes.Scenes
    mapped: bool
    before: int
    description: str = ""

    @property
    def count(self) -> int:
        return len(self.found.images)

    @property
    def labelled(self) -> bool:
        return True

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        for start in range(0, self.count, size):
            rows = self.found.rows(slice(start, start + size))
            images = torch.from_numpy(rows.images).float() / 127.5 - 1
            yield Batch(images, torch.from_numpy(rows.maps() if self.mapped else self._objects(rows)))

    def _objects(self, rows: scenes.Scenes) -> NDArray[np.float32]:
        objects = rows.objects()
        labels = np.where(objects["labels"] < 0, -1, objects["labels"] + self.before)
        return pack_objects({**objects, "labels": labels})
