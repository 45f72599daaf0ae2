"""Images and, in another folder under the same names, maps of the class of each pixel: PNG files of one channel.

A pixel of a map is the number of a class, 255 where nobody said. Maps are resized and cropped with their images, to the
nearest pixel; what lies beside an image is 255. A palette is only how a map is shown: its numbers are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from fimaq_deploy.data.annotated import Annotated, as_tensor
from fimaq_deploy.data.listing import UNREADABLE, image_files, printable
from fimaq_deploy.data.places import fitted
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.paths import kind_of

_NOBODY = 255
_MODES = ("1", "L", "P", "I", "I;16")


def mapped_images(folder: str | Path, maps: str | Path, info: ModelInfo) -> ImageSource:
    """The images of a folder, at any depth, labelled with the maps int64 (N, H, W) of the same paths but the suffix.

    Raises:
        UserError: either is no folder of images, an image has no map, or a map has another size or more channels.
    """
    images, beside = _named(folder), _named(maps)
    missing = [name for name in images if name not in beside]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(images)} images in {shown(str(folder))} have no map in {shown(str(maps))} "
            f"(first {shown(str(missing[0]))}): expected the same names with .png"
        )
    files, truth = [images[name] for name in images], _Truth([(images[name], beside[name]) for name in images], info)
    where = f"folder {printable(Path(folder))} with maps of {printable(Path(maps))}"
    unused = len(beside) - len(images)
    notes = (f"{unused} maps of {printable(Path(maps))} have no image and are not used",) if unused else ()
    source = Annotated(files, Preparation(info), truth, where, notes)
    source.take(1)
    return source


def _named(folder: str | Path) -> dict[Path, Path]:
    root = Path(folder)
    if kind_of(root) != "folder":
        raise UserError(f"no folder {shown(str(folder))}: expected a folder of image files")
    found = {file.relative_to(root).with_suffix(""): file for file in image_files(root).files}
    if not found:
        raise UserError(f"no image in {shown(str(folder))}: expected files that Pillow opens")
    return found


class _Truth:
    def __init__(self, pairs: Sequence[tuple[Path, Path]], info: ModelInfo) -> None:
        self._pairs, self._contract = pairs, replace(info.contract(), interpolation="nearest")

    def __call__(self, number: int) -> Tensor:
        file, path = self._pairs[number]
        name = f"map {printable(path)}"
        try:
            with Image.open(path) as found:
                found.load()
                mode, size = found.mode, found.size
                numbers = np.asarray(found)
            with Image.open(file) as image:
                wanted = image.size
        except UNREADABLE as error:
            raise UserError(f"{name} cannot be read: {shown(str(error))}; mend it, or take its image out") from error
        if mode not in _MODES:
            raise UserError(f"{name} is of mode {mode}: expected one channel with the number of each pixel's class")
        if size != wanted:
            raise UserError(
                f"{name} has {size[0]}×{size[1]} pixels, its image {wanted[0]}×{wanted[1]}: expected the same"
            )
        # Pillow fills and resizes numbers of 32 bits alike, whatever the map was written as.
        prepared = fitted(Image.fromarray(numbers.astype(np.int32)), self._contract, _NOBODY)
        return as_tensor(np.asarray(prepared).astype(np.int64))
