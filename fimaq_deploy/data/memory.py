"""Images that a program holds: arrays, and iterables of batches such as a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.data.batches import regroup
from fimaq_deploy.data.items import Items, has_labels
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.source import BATCH_SIZE, Array, Batch, ImageSource, require_positive
from fimaq_deploy.errors import UserError


@dataclass(frozen=True, eq=False)
class Scaled(ImageSource):
    """Bytes in memory that become pixel / 127.5 - 1 as they are read: what the bundled tasks are."""

    pixels: Tensor
    truth: Tensor
    description: str = ""

    @property
    def count(self) -> int:
        return len(self.pixels)

    @property
    def labelled(self) -> bool:
        return True

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        for start in range(0, len(self.pixels), size):
            rows = slice(start, start + size)
            yield Batch(self.pixels[rows].float() / 127.5 - 1, self.truth[rows])


@dataclass(frozen=True, eq=False)
class Arrays(ImageSource):
    """An array of images, in memory or mapped from a file.

    order: the images to read, by their position; None for all of them as they lie. It needs a NumPy array.
    """

    images: Array
    truth: Tensor | None
    pixels: Pixels
    description: str = "images in memory"
    order: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        return len(self.images) if self.order is None else len(self.order)

    @property
    def labelled(self) -> bool:
        return self.truth is not None

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self.pixels.notes)

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        for start in range(0, max(1, self.count), size):  # an empty array is read once, which says that it is empty
            rows: Any = slice(start, start + size)
            found = rows if self.order is None else torch.from_numpy(self.order[rows])
            images = self.images[rows] if self.order is None else self.images[self.order[rows]]
            what = f"images {start} to {start + len(images) - 1}" if self.count > size else "images"
            yield Batch(self.pixels(images, what), None if self.truth is None else self.truth[found])


@dataclass(frozen=True, eq=False)
class Batches(ImageSource):
    """An iterable of batches, or of single images, checked as it is read."""

    items: Iterable[Any]
    read: Items
    description: str = "an iterable of batches"
    started: list[bool] = field(default_factory=list)

    @property
    def count(self) -> None:
        return None

    @property
    def labelled(self) -> bool:
        """Whether the first item of a sequence has labels; other iterables are not asked before they are read."""
        first = self.items[0] if isinstance(self.items, Sequence) and len(self.items) else None
        return self.read.keep_labels and has_labels(first)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.read.notes

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        return regroup(self._items(), size)

    def _items(self) -> Iterator[Batch]:
        if isinstance(self.items, Iterator) and self.started:
            raise UserError("the generator of image batches was read before: pass a list or a DataLoader")
        self.started.append(True)
        number = -1
        for number, item in enumerate(self.items):
            yield self.read(item, f"batch {number}")
        if number < 0:
            raise UserError("the iterable of image batches yields nothing: expected at least one (N, C, H, W) batch")


class Indexed(Sequence[Any]):
    """A data set that is read by number, as a sequence: many never say where they end when iterated.

    order: the items to read, by their number.
    """

    def __init__(self, dataset: Any, order: Sequence[int]) -> None:
        self._dataset, self._order = dataset, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[self._order[index]]
