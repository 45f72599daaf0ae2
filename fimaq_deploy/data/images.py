"""Images for calibration and evaluation, from wherever they are, as batches that a model reads.

Every source yields float32 (N, channels, height, width) on the CPU, preprocessed, with int64 labels (N,) where it has
them. Sources stream: a folder is decoded as it is read, again on every pass, and only `take` holds images. The order is
the same on every pass.

Not covered: timm data sets (`timm:` names) and inputs of other than 1 or 3 channels from files; give arrays or an
iterable of batches for those.
"""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fimaq_deploy.bundled import Task
from fimaq_deploy.data import digits, shapes
from fimaq_deploy.errors import UserError
from fimaq_deploy.models import ModelInfo

Shape: TypeAlias = tuple[int, int, int]
Array: TypeAlias = "Tensor | NDArray[Any]"

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
BATCH_SIZE = 32
SHAPES_COUNT = {"train": 65536, "calibration": 2048, "test": 4000}

_THREADS = min(8, (os.cpu_count() or 1) + 1)
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class Batch(NamedTuple):
    """Images float32 (N, C, H, W) and, where known, labels int64 (N,)."""

    images: Tensor
    labels: Tensor | None


class ImageSource(ABC):
    """Images in a fixed order. Iterating yields image tensors of up to 32."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What the images are, for a report."""

    @property
    @abstractmethod
    def count(self) -> int | None:
        """How many images a pass yields, without the unreadable files found so far; None where only a pass can tell."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether batches carry labels."""

    @property
    def skipped(self) -> tuple[Path, ...]:
        """Unreadable files found so far, in name order."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say about the source."""
        return ()

    @abstractmethod
    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        """One pass, in batches of `size` images; the last may be smaller.

        Raises:
            UserError: an image is not what a model reads, or there is none.
        """

    def __iter__(self) -> Iterator[Tensor]:
        return (batch.images for batch in self.batches())

    def take(self, count: int) -> Tensor:
        """The first `count` images (count, C, H, W), or all where there are fewer.

        Raises:
            UserError: as `batches`.
        """
        _require_positive(count)
        found: list[Tensor] = []
        for batch in self.batches(min(BATCH_SIZE, count)):
            found.append(batch.images)
            if sum(map(len, found)) >= count:
                break
        return torch.cat(found)[:count]


def bundled_images(task: Task, split: Literal["train", "calibration", "test"], count: int | None = None) -> ImageSource:
    """The first `count` labelled images of a bundled task, in [-1, 1].

    digits has at most 941, 256 and 600 images to train, calibrate and test; shapes has any number, and 65,536, 2,048
    and 4,000 where `count` is None.

    Raises:
        UserError: count is not positive.
    """
    if count is not None:
        _require_positive(count)
    pixels, labels = digits.load(split) if task == "digits" else shapes.generate(split, count or SHAPES_COUNT[split])
    images, truth = torch.from_numpy(pixels[:count]), torch.from_numpy(labels[:count])
    return _Arrays(images, truth, f"bundled {task}, {split} split", scale=127.5)


def folder_images(
    path: str | Path, info: ModelInfo, *, limit: int | None = None, seed: int = 0, labelled: bool = False
) -> ImageSource:
    """Image files under `path`, prepared as timm does for evaluation, in an order drawn from `seed`.

    `limit` draws that many uniformly. A file that cannot be decoded is skipped and counted in `skipped`.

    labelled: `path` has one sub-folder per class, files may lie at any depth below it. As in torchvision's ImageFolder
        the sorted folder names give the labels 0, 1, ...; this holds for ImageNet synsets and for numbers too, which
        are sorted as text. A folder without images keeps its label. Otherwise: every image file at any depth.

    Raises:
        UserError: no such folder, no readable image in it, no class folders, or more of them than the model's classes.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"no image folder '{path}': expected a folder of images")
    if limit is not None:
        _require_positive(limit)
    classes = _class_folders(root, info) if labelled else []
    files, labels = _labelled_files(classes) if labelled else (_image_files(root), None)
    if not files:
        raise UserError(f"image folder {path} is empty: expected files such as {', '.join(sorted(SUFFIXES)[:4])}")
    order = np.random.default_rng(seed).permutation(len(files))[:limit]
    source = _Folder(
        root,
        tuple(files[i] for i in order),
        None if labels is None else torch.tensor([labels[i] for i in order]),
        len(classes),
        info.classes,
        _reader(info),
    )
    source.take(1)
    return source


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
        return _Arrays(tensor, _checked_labels(labels, len(tensor), "labels"), "images in memory")
    if isinstance(images, (str, bytes, dict)) or not isinstance(images, Iterable):
        raise UserError(
            f"images of type {type(images).__name__}: expected a float32 (N, C, H, W) array or an iterable of batches"
        )
    if labels is not None:
        raise UserError("labels beside an iterable of batches: yield pairs (images, labels) instead")
    return _Batches(images, shape)


# --- arrays ---


@dataclass(frozen=True, eq=False)
class _Arrays(ImageSource):
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
        _require_positive(size, "batch size")
        for start in range(0, len(self.pixels), size):
            rows = slice(start, start + size)
            images = self.pixels[rows] if self.scale is None else self.pixels[rows].float() / self.scale - 1
            yield Batch(images, None if self.truth is None else self.truth[rows])


# --- a user's batches ---


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
        _require_positive(size, "batch size")
        return _regroup(self._items(), size)

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


def _regroup(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same images in batches of `size`."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(len(each.images) for each in held) >= size:
            merged = _merge(held)
            whole = len(merged.images) // size * size
            yield from (_rows(merged, slice(start, start + size)) for start in range(0, whole, size))
            held = [_rows(merged, slice(whole, None))] if whole < len(merged.images) else []
    if held:
        yield _merge(held)


def _merge(batches: Sequence[Batch]) -> Batch:
    labels = [batch.labels for batch in batches if batch.labels is not None]
    if labels and len(labels) < len(batches):
        raise UserError("some image batches have labels and some have none: give all of them labels, or none")
    return Batch(torch.cat([batch.images for batch in batches]), torch.cat(labels) if labels else None)


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.images[rows], None if batch.labels is None else batch.labels[rows])


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


def _require_positive(number: int, what: str = "image count") -> None:
    if number < 1:
        raise UserError(f"{what} {number}: expected at least 1")


# --- folders ---


@dataclass(frozen=True, eq=False)
class _Folder(ImageSource):
    """Image files, decoded by a pool of threads as they are read."""

    root: Path
    files: tuple[Path, ...]
    truth: Tensor | None
    class_folders: int
    classes: int
    read: Callable[[Path], Tensor | None]
    bad: set[Path] = field(default_factory=set)

    @property
    def description(self) -> str:
        return f"folder {self.root}"

    @property
    def count(self) -> int:
        return len(self.files) - len(self.bad)

    @property
    def labelled(self) -> bool:
        return self.truth is not None

    @property
    def skipped(self) -> tuple[Path, ...]:
        return tuple(sorted(self.bad))

    @property
    def notes(self) -> tuple[str, ...]:
        skipped = [f"{len(self.bad)} of {len(self.files)} image files could not be decoded and were skipped"]
        fewer = [
            f"{self.class_folders} class folders for {self.classes} classes: sorted names are taken as labels "
            f"0 to {self.class_folders - 1}"
        ]
        return (*(skipped if self.bad else ()), *(fewer if 0 < self.class_folders < self.classes else ()))

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        _require_positive(size, "batch size")
        return _regroup(self._images(), size)

    def _images(self) -> Iterator[Batch]:
        good = [i for i, file in enumerate(self.files) if file not in self.bad]
        for index, image in zip(good, _map_ahead(self.read, [self.files[i] for i in good]), strict=True):
            if image is None:
                self.bad.add(self.files[index])
            else:
                yield Batch(image[None], None if self.truth is None else self.truth[index : index + 1])
        if not self.count:
            raise UserError(
                f"image folder {self.root}: not one of {len(self.files)} files is readable "
                f"(first {self.files[0].name}): expected images that Pillow opens"
            )


def _map_ahead(call: Callable[[Path], Any], items: Iterable[Path]) -> Iterator[Any]:
    """The results in order, from threads that work only a few items ahead, so that memory does not grow."""
    pool, waiting = ThreadPoolExecutor(_THREADS), iter(items)
    try:
        ahead = deque(pool.submit(call, item) for item in islice(waiting, 4 * _THREADS))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(call, item) for item in islice(waiting, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _class_folders(root: Path, info: ModelInfo) -> list[Path]:
    found = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise UserError(f"evaluation folder {root} has no class sub-folders: expected one folder of images per class")
    if len(found) > info.classes:
        raise UserError(
            f"evaluation folder {root} has {len(found)} class folders, the model {info.classes} classes: "
            "expected one folder per class of the model"
        )
    return found


def _labelled_files(classes: Sequence[Path]) -> tuple[list[Path], list[int]]:
    pairs = [(file, label) for label, folder in enumerate(classes) for file in _image_files(folder)]
    return [file for file, _ in pairs], [label for _, label in pairs]


def _image_files(folder: Path) -> list[Path]:
    """Image files at any depth, in an order that does not depend on the file system. Hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    inside = ((p.relative_to(folder), p) for p in found)
    return [p for inner, p in sorted(inside) if not any(part.startswith(".") for part in inner.parts)]


def _reader(info: ModelInfo) -> Callable[[Path], Tensor | None]:
    """A function from a file to float32 (C, H, W), or to None where the file cannot be decoded."""
    from timm.data import create_transform

    channels, height, width = info.input_shape
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise UserError(f"image files feed 1 or 3 channels, the model reads {channels}: give arrays instead")
    prepare: Any = create_transform(
        input_size=(channels, height, width),
        is_training=False,
        interpolation=info.interpolation,
        mean=info.mean,
        std=info.std,
        crop_pct=info.crop_pct,
        crop_mode=info.crop_mode,
    )

    def read(file: Path) -> Tensor | None:
        try:
            with Image.open(file) as image:
                decoded = image.convert(modes[channels])
        except _UNREADABLE:
            return None
        return prepare(decoded)  # type: ignore[no-any-return]

    return read
