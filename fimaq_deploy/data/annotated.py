"""Image files with something beside them that says what they show, place by place: objects, or the class of each pixel.

Each image is prepared as the model reads it, like every other one, and what is said about its places goes with it
(`data.places`). Unlike in a folder of classes, a file that cannot be read stops the build, since it is one by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from fimaq_deploy.data.batches import regroup
from fimaq_deploy.data.decode import Refused
from fimaq_deploy.data.listing import printable
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource, require_positive
from fimaq_deploy.errors import UserError

Truth: TypeAlias = "Callable[[int], Tensor]"
"""From the number of an image to its labels (1, ...), at the size that the model reads."""


@dataclass(frozen=True, eq=False)
class Annotated(ImageSource):
    """Image files in an order, and what each of them shows.

    where: how to call them. truth: see `Truth`. remarks: what a report should say.
    """

    files: Sequence[Path]
    prepare: Preparation
    truth: Truth
    where: str
    remarks: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        return self.where

    @property
    def count(self) -> int:
        return len(self.files)

    @property
    def labelled(self) -> bool:
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.remarks, *self.prepare.notes())

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        return regroup((Batch(self._image(file)[None], self.truth(n)) for n, file in enumerate(self.files)), size)

    def _image(self, file: Path) -> Tensor:
        try:
            return self.prepare.read(file)
        except Refused as refused:
            raise UserError(f"image {printable(file)}: {refused}; mend it, or take it out") from refused


def as_tensor(found: object) -> Tensor:
    """Labels of one image as `Truth` has them."""
    return torch.as_tensor(found)[None]
