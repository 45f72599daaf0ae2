"""Folders of image files, decoded as they are read."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fimaq_deploy.data.batches import regroup
from fimaq_deploy.data.class_maps import ClassMap, Labels, find_labels, read_class_map
from fimaq_deploy.data.decode import Refused
from fimaq_deploy.data.listing import SEEN, Listing, entries, identity, image_files, printable
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource, drawn, require_positive
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.paths import kind_of

_THREADS = min(8, (os.cpu_count() or 1) + 1)


def folder_images(
    path: str | Path,
    info: ModelInfo,
    *,
    limit: int | None = None,
    seed: int = 0,
    labelled: bool = False,
    class_map: ClassMap | str | Path | None = None,
) -> ImageSource:
    """Image files under `path`, prepared as timm does for evaluation, in an order drawn from `seed`.

    `limit` draws that many uniformly. Files that are left out, and those that cannot be decoded, are counted in
    `notes`, with their reasons. `path` may be one image file.

    labelled: sub-folders of `path` are classes (`data.class_maps` says which), with files at any depth below them; a
        folder without images keeps its class. Without sub-folders, or where the model has no classes, the images have
        no labels. Otherwise: every image file at any depth.
    class_map: folder names and their classes, or a file of them.

    Raises:
        UserError: no such folder, no readable image in it, or class folders that do not fit the model.
    """
    root = Path(path)
    if limit is not None:
        require_positive(limit)
    found = _found(root, info, labelled, class_map)
    if not found.files:
        left = f"; left out: {found.listing.summary()}" if found.listing.left_out else ""
        raise UserError(f"no image in {printable(root)}: expected files that Pillow opens{left}")
    order = drawn(len(found.files), limit, seed)
    truth = None if found.truth is None else torch.tensor([found.truth[i] for i in order])
    source = Folder(root, tuple(found.files[i] for i in order), truth, Preparation(info), found.notes(root))
    source.take(1)
    return source


@dataclass
class _Found:
    """The files of a folder, before any is drawn."""

    files: list[Path]
    truth: list[int] | None
    listing: Listing
    remarks: tuple[str, ...] = ()

    def notes(self, root: Path) -> tuple[str, ...]:
        left = self.listing.summary()
        return (*((f"left out of {printable(root)}: {left}",) if left else ()), *self.remarks)


def _found(root: Path, info: ModelInfo, labelled: bool, class_map: ClassMap | str | Path | None) -> _Found:
    kind = kind_of(root)
    if kind is None:
        raise UserError(f"no image folder {printable(root)}: expected a folder of images")
    if kind == "file":
        return _Found([root], None, Listing())
    if labelled and info.classes:
        return _in_classes(root, info, class_map)
    listing = image_files(root)
    return _Found(listing.files, None, listing)


def _in_classes(root: Path, info: ModelInfo, class_map: ClassMap | str | Path | None) -> _Found:
    listing = Listing()
    folders = list(_sub_folders(root, listing))
    if not folders:
        plain = image_files(root)
        return _Found(plain.files, None, plain, ("no sub-folders, so no labels: one folder a class would give them",))
    given = read_class_map(class_map, root) if isinstance(class_map, (str, Path)) else class_map
    labels = find_labels([folder.name for folder in folders], info, given)
    files, truth = _labelled(folders, labels, listing, identity(root))
    return _Found(files, truth, listing, labels.notes)


def _sub_folders(root: Path, listing: Listing) -> Iterator[Path]:
    for path, mode in entries(root, listing):
        if not stat.S_ISDIR(mode):
            listing.leave_out(path, "files beside the class folders")
        elif identity(path) == identity(root):
            listing.leave_out(path, SEEN)
        else:
            yield path


def _labelled(
    folders: Iterable[Path], labels: Labels, listing: Listing, root: tuple[int, int]
) -> tuple[list[Path], list[int]]:
    files, truth = [], []
    for folder in folders:
        if folder.name in labels.of:
            inside = image_files(folder, seen=frozenset({root}))
            files += inside.files
            truth += [labels.of[folder.name]] * len(inside.files)
            for reason, paths in inside.left_out.items():
                listing.left_out.setdefault(reason, []).extend(paths)
    return files, truth


@dataclass(frozen=True, eq=False)
class Folder(ImageSource):
    """Image files, decoded by a pool of threads as they are read.

    found: notes on how the files were found. bad: files that were not used, with the reason, as far as they were read.
    """

    root: Path
    files: tuple[Path, ...]
    truth: Tensor | None
    prepare: Preparation
    found: tuple[str, ...] = ()
    bad: dict[Path, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        return f"folder {printable(self.root)}"

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
        return (*self._skipped(), *self.found, *self.prepare.notes())

    def _skipped(self) -> tuple[str, ...]:
        if not self.bad:
            return ()
        first = self.skipped[0]
        inside = first.name if first == self.root else first.relative_to(self.root)
        reason = f"the first is {printable(Path(inside))}: {self.bad[first]}"
        return (f"{len(self.bad)} of {len(self.files)} image files could not be used and were skipped; {reason}",)

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        require_positive(size, "batch size")
        return regroup(self._images(), size)

    def _images(self) -> Iterator[Batch]:
        good = [i for i, file in enumerate(self.files) if file not in self.bad]
        for index, image in zip(good, _map_ahead(self._read, [self.files[i] for i in good]), strict=True):
            if isinstance(image, Refused):
                self.bad[self.files[index]] = str(image)
            else:
                yield Batch(image[None], None if self.truth is None else self.truth[index : index + 1])
        if not self.count:
            first = self.files[0]
            raise UserError(
                f"image folder {printable(self.root)}: not one of {len(self.files)} files can be used "
                f"(first {printable(Path(first.name))}: {self.bad[first]})"
            )

    def _read(self, file: Path) -> Tensor | Refused:
        try:
            return self.prepare.read(file)
        except Refused as refused:
            return refused


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
