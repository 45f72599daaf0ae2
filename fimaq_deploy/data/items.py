"""One item of what a program iterates over: images, with labels beside them or without.

An item is images (an array, a tensor, a PIL image, a file, or a list of them), a pair or longer tuple of which the
first two are images and labels, or a mapping that names them as data sets and data loaders do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fimaq_deploy.data.objects import pack_objects
from fimaq_deploy.data.pixels import Pixels, is_array
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import Batch
from fimaq_deploy.errors import UserError, shown

IMAGE_KEYS = ("pixel_values", "images", "image", "imgs", "img", "inputs", "input", "pixels", "x", "data")
LABEL_KEYS = ("labels", "label", "targets", "target", "classes", "class", "y", "fine_label")


@dataclass
class Items:
    """Turns items into batches.

    decode: from a PIL image or a file to float32 (C, H, W); None where nothing says how to prepare them.
    keep_labels: whether labels are read at all; where nobody needs them, they may be anything.
    """

    pixels: Pixels
    decode: Preparation | None = None
    keep_labels: bool = True

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.pixels.notes, *(self.decode.notes() if self.decode else ()))

    def __call__(self, item: Any, what: str) -> Batch:
        """Raises:
        UserError: `what` the item is holds no images, or they or their labels are refused.
        """
        images, labels = split(item, what)
        tensor = self.pixels(self._array(images, what), what)
        return Batch(tensor, as_labels(labels, len(tensor), f"{what}: labels") if self.keep_labels else None)

    def _array(self, images: Any, what: str) -> Any:
        """An array of the images, which may be a list of them, or files to be decoded."""
        if isinstance(images, (list, tuple)) and images:
            return torch.cat([self.pixels(self._array(one, what), what) for one in images])
        if not is_array(images) and _is_picture(images):
            return self._decoded(images, what)
        return images

    def _decoded(self, image: Any, what: str) -> Tensor:
        if self.decode is None:
            raise UserError(
                f"{what} is a {type(image).__name__}: expected an array (N, C, H, W), because nothing here says how "
                "images are prepared for the model"
            )
        return self.decode(image if isinstance(image, Image.Image) else Path(image))


def split(item: Any, what: str) -> tuple[Any, Any]:
    """The images and the labels of an item; None for labels that it has not.

    Raises:
        UserError: a mapping without images.
    """
    if isinstance(item, Mapping):
        return split_mapping(item, what)
    if isinstance(item, (tuple, list)) and item and not _is_list_of_images(item):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def split_mapping(item: Mapping[Any, Any], what: str) -> tuple[Any, Any]:
    """The images and labels of a mapping: by their usual names, else the only entry with at least three axes."""
    named = next((key for key in IMAGE_KEYS if key in item), None)
    large = [key for key, value in item.items() if is_array(value) and value.ndim >= 3]
    images = named if named is not None else large[0] if len(large) == 1 else None
    if images is None:
        names = ", ".join(map(str, item)) or "nothing"
        raise UserError(f"{what} names {shown(names)}: expected 'images' or 'pixel_values', and 'labels'")
    others = [key for key in item if key != images]
    labels = next((key for key in LABEL_KEYS if key in others), others[0] if named is None and others else None)
    return item[images], None if labels is None else item[labels]


def has_labels(item: Any) -> bool:
    """Whether an item brings labels."""
    try:
        return split(item, "")[1] is not None
    except UserError:
        return False


def as_labels(labels: Any, count: int, what: str) -> Tensor | None:
    """int64 or float32 (count, ...): a class or a number an image, or as much as its task has of them. Boxes and labels
    of objects, and their masks, in a mapping are packed as `data.objects` does.

    Raises:
        UserError: they are no numbers, or not one an image.
    """
    if labels is None:
        return None
    if isinstance(labels, Mapping) and {"boxes", "labels"} <= labels.keys():
        labels = _objects(labels, count, what)
    try:
        tensor = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{what} are {shown(labels)}: expected {count} numbers, one an image") from None
    tensor = tensor[None] if tensor.ndim == 0 and count == 1 else tensor
    if tensor.is_complex() or tensor.ndim == 0 or len(tensor) != count:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{what} are {kind} {tuple(tensor.shape)}: expected {count} numbers, one an image")
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _objects(labels: Mapping[str, Any], count: int, what: str) -> Tensor:
    arrays = {name: np.asarray(each) for name, each in labels.items() if each is not None}
    boxes, kinds, masks = arrays["boxes"], arrays["labels"], arrays.get("masks")
    fits = kinds.ndim == 2 and boxes.shape == (*kinds.shape, 4) and len(kinds) == count
    if not fits or (masks is not None and (masks.ndim != 4 or masks.shape[:2] != kinds.shape)):
        raise UserError(
            f"{what} are boxes {boxes.shape} and labels {kinds.shape}: expected ({count}, objects, 4) and "
            f"({count}, objects), and masks ({count}, objects, height, width) where there are any"
        )
    return torch.from_numpy(pack_objects(arrays))


def _is_picture(value: Any) -> bool:
    return isinstance(value, (Image.Image, str, PathLike))


def _is_list_of_images(items: Sequence[Any]) -> bool:
    """Whether all of them are pictures, or arrays of one shape with three axes; a pair of images and labels is not."""
    if all(_is_picture(item) for item in items):
        return True
    first = items[0]
    return all(is_array(item) and item.ndim == 3 and item.shape == first.shape for item in items)
