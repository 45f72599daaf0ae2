"""Folders of image files, decoded as they are read.

Not covered: inputs of other than 1 or 3 channels; give arrays or an iterable of batches for those.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fimaq_deploy.data.batches import regroup
from fimaq_deploy.data.classes import SUFFIXES, class_folders, image_files, labelled_files
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource, require_positive
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

_THREADS = min(8, (os.cpu_count() or 1) + 1)


_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


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
        require_positive(limit)
    classes = class_folders(root, info) if labelled else []
    files, labels = labelled_files(classes) if labelled else (image_files(root), None)
    if not files:
        raise UserError(f"image folder {path} is empty: expected files such as {', '.join(sorted(SUFFIXES)[:4])}")
    order = np.random.default_rng(seed).permutation(len(files))[:limit]
    source = Folder(
        root,
        tuple(files[i] for i in order),
        None if labels is None else torch.tensor([labels[i] for i in order]),
        len(classes),
        info.classes,
        _reader(info),
    )
    source.take(1)
    return source


@dataclass(frozen=True, eq=False)
class Folder(ImageSource):
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
        require_positive(size, "batch size")
        return regroup(self._images(), size)

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
