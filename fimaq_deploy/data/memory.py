"""Images that a program holds: arrays, tensors, and iterables of batches such as a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fimaq_deploy.data.batches import regroup
from fimaq_deploy.data.source import BATCH_SIZE, Array, Batch, ImageSource, Shape, require_positive
from fimaq_deploy.errors import UserError


def image_source(
    images: ImageSource | Array | Iterable[Any],
    *,
    labels: Array | Sequence[int] | None = None,
    shape: Shape | None = None,
) -> ImageSource:
    """What a user passes as images: an array, a tensor, an iterable of batches, or a source, which is returned as is.

    Arrays are preprocessed float32 (N, C, H, W). Items of an iterable are such arrays, or pairs of one and its labels,
    as a DataLoader yields. A generator gives one pass; a list or a DataLoader gives any number.

    shape: what the model reads, if it is to be checked.

    Raises:
        UserError: the type, rank, data type, size or values are not as above; for an iterable when it is read.
    """
    if isinstance(images, ImageSource):
        if labels is not None:
            raise UserError("labels beside an image source: a source brings its own labels")
        return images
    if isinstance(images, (Tensor, np.ndarray)):
        tensor = _checked(images, shape, "images")
        return Arrays(tensor, _checked_labels(labels, len(tensor), "labels"), "images in memory")
    if isinstance(images, (str, bytes, dict)) or not isinstance(images, Iterable):
        raise UserError(
            f"images of type {type(images).__name__}: expected a float32 (N, C, H, W) array or an iterable of batches"
        )
    if labels is not None:
        raise UserError("labels beside an iterable of batches: yield pairs (images, labels) instead")
    return _Batches(images, shape)


@dataclass(frozen=True, eq=False)
class Arrays(ImageSource):
    """Images in memory. With `scale`, bytes that become pixel / scale - 1 as they are read."""

    pixels: Tensor
    truth: Tensor | None
    description: str = ""
    scale: float | None = None

    @property
    def count(self) -> int:
        return len(self.pixels)

    @property
    def labelled(self) -> bool:
        return self.truth is not None

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        for start in range(0, len(self.pixels), size):
            rows = slice(start, start + size)
            images = self.pixels[rows] if self.scale is None else self.pixels[rows].float() / self.scale - 1
            yield Batch(images, None if self.truth is None else self.truth[rows])


@dataclass(frozen=True, eq=False)
class _Batches(ImageSource):
    """An iterable of batches, checked as it is read."""

    items: Iterable[Any]
    shape: Shape | None
    started: list[bool] = field(default_factory=list)
    description: str = "an iterable of batches"

    @property
    def count(self) -> None:
        return None

    @property
    def labelled(self) -> bool:
        """Whether the first item of a list is a pair; other iterables are not asked before they are read."""
        first = self.items[0] if isinstance(self.items, Sequence) and self.items else None
        return _is_pair(first)

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        return regroup(self._items(), size)

    def _items(self) -> Iterator[Batch]:
        if isinstance(self.items, Iterator) and self.started:
            raise UserError("the generator of image batches was read before: pass a list or a DataLoader")
        self.started.append(True)
        shape, number = self.shape, -1
        for number, item in enumerate(self.items):
            batch = _checked_batch(item, shape, f"batch {number}")
            shape = _shape(batch.images)
            yield batch
        if number < 0:
            raise UserError("the iterable of image batches yields nothing: expected at least one (N, C, H, W) batch")


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _checked_batch(item: Any, shape: Shape | None, what: str) -> Batch:
    images, labels = item if _is_pair(item) else (item, None)
    tensor = _checked(images, shape, what)
    return Batch(tensor, _checked_labels(labels, len(tensor), f"{what}: labels"))


def _shape(images: Tensor) -> Shape:
    channels, height, width = images.shape[1:]
    return channels, height, width


def _checked(images: Any, shape: Shape | None, what: str) -> Tensor:
    """Images as a CPU tensor, refused unless finite float32 (N, C, H, W) of at least one image of the given shape."""
    if not isinstance(images, (Tensor, np.ndarray)):
        raise UserError(f"{what} is a {type(images).__name__}: expected a float32 (N, C, H, W) array or tensor")
    if images.ndim != 4:
        raise UserError(f"{what} has shape {tuple(images.shape)}: expected 4 axes (N, C, H, W)")
    if str(images.dtype).removeprefix("torch.") != "float32":
        raise UserError(f"{what} is {images.dtype}: expected float32, scaled and normalised as the model was trained")
    if len(images) == 0:
        raise UserError(f"{what} has size 0: expected at least one image")
    tensor = (
        images.detach().cpu()
        if isinstance(images, Tensor)
        else torch.from_numpy(np.require(images, requirements=["C", "W"]))
    )
    if shape is not None and _shape(tensor) != tuple(shape):
        raise UserError(f"{what} holds images of {_size(_shape(tensor))}: expected {_size(shape)}, resize them first")
    bad = int((~tensor.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise UserError(f"{what}: {bad} of {len(tensor)} images hold NaN or infinite pixels; remove or repair them")
    return tensor


def _size(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _checked_labels(labels: Any, count: int, what: str) -> Tensor | None:
    if labels is None:
        return None
    tensor = torch.as_tensor(labels).detach().cpu()
    if tensor.is_floating_point() or tensor.ndim != 1 or len(tensor) != count:
        raise UserError(f"{what} are {tensor.dtype} {tuple(tensor.shape)}: expected {count} integers, one an image")
    return tensor.long()
