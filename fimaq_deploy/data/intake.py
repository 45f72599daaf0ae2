"""The one door for images: whatever a user has, the same in every function and in every command.

| given | becomes |
|---|---|
| a folder | its image files, prepared as timm prepares them; its sub-folders are classes where labels are wanted |
| `.npy`, `.npz`, `.safetensors` | the arrays in it: `images` and `labels`, or what data sets call them |
| an array or tensor | images (N, C, H, W) by the rules of `data.pixels` |
| a pair or a mapping | images and labels: `(images, labels)`, `{"pixel_values": ..., "labels": ...}` |
| a data set with a length | its items by number: images, pairs, mappings; PIL images are prepared like files |
| any other iterable | a DataLoader, a list, a generator: batches, or single images, of all of the above |
| an image file, a list of them | the same as a folder of them |

Labels are read where they are wanted. Where they are not, as for calibration, they may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from torch import nn
from torch.utils.data import IterableDataset

from fimaq_deploy.data.array_files import SUFFIXES, array_file
from fimaq_deploy.data.class_maps import ClassMap
from fimaq_deploy.data.folder import folder_images
from fimaq_deploy.data.items import Items, as_labels, split
from fimaq_deploy.data.memory import Arrays, Batches, Indexed
from fimaq_deploy.data.pixels import Pixels, Reads, is_array
from fimaq_deploy.data.prepare import preparation
from fimaq_deploy.data.source import Array, ImageSource, drawn, require_positive
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.models.describe import ModelInfo, describe_model
from fimaq_deploy.models.paths import kind_of

Images: TypeAlias = "ImageSource | Array | str | PathLike[str] | Mapping[str, Any] | Iterable[Any]"


def as_source(
    images: Images,
    reads: Reads = None,
    *,
    labels: Array | Sequence[Any] | None = None,
    keep_labels: bool = True,
    limit: int | None = None,
    seed: int = 0,
    class_map: ClassMap | str | PathLike[str] | None = None,
) -> ImageSource:
    """The images as a source, checked as far as its first image. A source is returned as it is.

    reads: of the model: its `ModelInfo`; its shape (C, H, W) alone, with which neither files nor raw pixels can be
        prepared; or None, with which nothing is checked but that all images have one shape.
    labels: beside an array.
    keep_labels: whether labels are wanted.
    limit: of a folder, a file of arrays or a data set, draw that many by `seed`; of everything else the caller takes as
        many as it needs from the beginning.
    class_map: of a folder with a sub-folder for each class: their names and classes, or a file of them.

    Raises:
        UserError: the images are none of the above, cannot be read, or do not fit the model; an iterable is checked as
            it is read.
    """
    if limit is not None:
        require_positive(limit)
    if labels is not None and not is_array(images):
        raise UserError(f"labels beside images of type {type(images).__name__}: {_OWN_LABELS}")
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, (str, PathLike)):
        path = _path(images)
        if path.suffix.lower() in SUFFIXES and kind_of(path) == "file":
            return _tried(array_file(path, Pixels(reads), limit=limit, seed=seed, keep_labels=keep_labels))
        return _files(path, reads, limit=limit, seed=seed, labelled=keep_labels, class_map=class_map)
    return _from_memory(images, reads, labels, keep_labels=keep_labels, limit=limit, seed=seed)


def reads_of(predict: object) -> Reads:
    """What is known of what a module or an engine reads: a model of a known family, an engine's shape, or nothing.

    Nothing, too, where a model takes any size.
    """
    for model in (predict, getattr(predict, "model", None)):
        if isinstance(model, nn.Module) and not getattr(model, "dynamic_img_size", False):
            with suppress(UserError):
                return describe_model(model)
    shape: Any = getattr(predict, "input_shape", ())
    fixed = isinstance(shape, tuple) and len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])
    return (shape[1], shape[2], shape[3]) if fixed else None


_OWN_LABELS = "labels go beside an array alone; give pairs (images, labels), or a source that brings its own"


def _path(given: str | PathLike[str]) -> Path:
    if kind_of(str(given)) is None:
        raise UserError(f"no images at {shown(str(given))}: expected a folder, an image, or {_ARRAYS}")
    path = Path(given)
    if kind_of(path) == "file" and not is_file(path):
        raise UserError(f"images {shown(str(given))}: a pipe or a device cannot be read again; expected a file")
    return path


_ARRAYS = f"a file of arrays ({', '.join(SUFFIXES)})"


def _files(path: Path, reads: Reads, **options: Any) -> ImageSource:
    if not isinstance(reads, ModelInfo):
        raise UserError(f"images from {path}: preparing them needs the model; give arrays that are prepared already")
    return folder_images(path, reads, **options)


def _from_memory(
    images: Any, reads: Reads, labels: Any, *, keep_labels: bool, limit: int | None, seed: int
) -> ImageSource:
    given = _whole(images, labels)
    if given is not None:
        return _from_array(*given, Pixels(reads), keep_labels=keep_labels)
    read = Items(Pixels(reads), preparation(reads), keep_labels)
    if isinstance(images, (Image.Image, Mapping)):
        return Batches([images], read)
    if _is_dataset(images):
        order = drawn(len(images), limit, seed).tolist() if limit else range(len(images))
        return Batches(Indexed(images, order), read, f"a data set, {type(images).__name__}")
    if isinstance(images, (bytes, bytearray)) or not isinstance(images, Iterable):
        raise UserError(f"images of type {type(images).__name__}: expected {_EXPECTED}")
    return Batches(images, read)


_EXPECTED = (
    "an array (N, C, H, W), an iterable of batches such as a DataLoader, a data set, a folder, or the path of a file"
)


def _whole(images: Any, labels: Any) -> tuple[Array, Any] | None:
    """The array, and its labels, that the images are as a whole; None where they are to be iterated."""
    if is_array(images):
        return images, labels
    if isinstance(images, Mapping):
        found = split(images, "images")
        return found if is_array(found[0]) else None
    pair = isinstance(images, (tuple, list)) and len(images) == 2 and is_array(images[0]) and images[0].ndim == 4
    return (images[0], images[1]) if pair and not _is_batch(images[1]) else None


def _is_batch(value: Any) -> bool:
    """Whether it stands beside another batch rather than being its labels."""
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return isinstance(first, Mapping) or (is_array(first) and first.ndim >= (4 if first is value else 3))


def _is_dataset(value: Any) -> bool:
    """Whether it is read by number: it has a length and items and is neither a sequence nor a mapping."""
    indexed = hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__")
    return indexed and not isinstance(value, (Sequence, Mapping, IterableDataset))


def _from_array(images: Array, labels: Any, pixels: Pixels, *, keep_labels: bool) -> ImageSource:
    given = images if images.ndim == 4 else pixels(images, "images")
    return _tried(Arrays(given, as_labels(labels, len(given), "labels") if keep_labels else None, pixels))


def _tried(source: ImageSource) -> ImageSource:
    """The source, once its first image is known to be readable."""
    source.take(1)
    return source
