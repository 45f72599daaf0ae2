"""A file or a PIL image as the tensor that a model reads: decoded, resized, cropped and normalised as timm does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from fimaq_deploy.data.decode import DEEP, MODES, Decoded, Refused, decode, decode_file
from fimaq_deploy.data.listing import ARRAY, UNREADABLE, printable
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo

_UNNAMED = Path("an image in memory")


@dataclass
class Preparation:
    """From a file to float32 (C, H, W). Remembers what was special about the files that it read."""

    info: ModelInfo
    remarks: dict[str, set[Path]] = field(default_factory=dict)
    largest: dict[Path, float] = field(default_factory=dict)
    _pixels: Pixels = field(init=False)

    def __post_init__(self) -> None:
        self._pixels = Pixels(self.info)

    def read(self, file: Path) -> Tensor:
        """Raises:
        Refused: the file is not used.
        """
        if file.suffix.lower() == ARRAY:
            return self._read_array(file)
        found = decode_file(file, self.info.input_shape[0], self.info.bit_depth)
        self._remember(found, file)
        return self._prepared(found.image)

    def image(self, image: Image.Image) -> Tensor:
        """A PIL image. Raises UserError where it cannot be read."""
        try:
            found = decode(image, self.info.input_shape[0], self.info.bit_depth)
        except (Refused, *UNREADABLE) as error:
            raise UserError(f"a PIL image of mode {image.mode} is not used: {error}") from error
        self._remember(found, _UNNAMED)
        return self._prepared(found.image)

    def __call__(self, image: Image.Image | Path) -> Tensor:
        """A PIL image or a file that a program names.

        Raises:
            UserError: it is not used.
        """
        if isinstance(image, Image.Image):
            return self.image(image)
        try:
            return self.read(image)
        except Refused as error:
            raise UserError(f"image {printable(image)}: {error}") from error

    def notes(self) -> tuple[str, ...]:
        """How many files were special, and what was done to them."""
        counts = {remark: "some" if _UNNAMED in files else len(files) for remark, files in self.remarks.items()}
        return tuple(f"{remark}: {count}{self._added(remark)}" for remark, count in counts.items())

    def _added(self, remark: str) -> str:
        if remark != DEEP or self.info.bit_depth is not None:
            return ""
        largest = int(max(self.largest.values()))
        bits = max(8, largest.bit_length())
        doubt = f", but none is above {largest}: if they hold {bits} bits, give --bit-depth {bits}"
        return f"; the largest value of that depth is white{doubt if bits <= 14 else ''}"

    def _remember(self, found: Decoded, file: Path) -> None:
        for remark in found.remarks:
            self.remarks.setdefault(remark, set()).add(file)
        if found.largest is not None:
            self.largest[file] = found.largest

    def _prepared(self, image: Image.Image) -> Tensor:
        if image.mode != "F":
            return self._bytes(image)
        channels = torch.cat([geometry(image) for geometry in self._floats]).clamp(0, 255) / 255
        return self._normalise(channels)

    @cached_property
    def _bytes(self) -> Any:
        return _transform(self.info, self.info.mean, self.info.std)

    @cached_property
    def _floats(self) -> list[Any]:
        """For each channel the same resizing and cropping of floats in [0, 255]; only a border differs, by the mean."""
        return [Compose(_transform(self.info, (mean,), (1.0,)).transforms[:-1]) for mean in self.info.mean]

    @cached_property
    def _normalise(self) -> Any:
        return self._bytes.transforms[-1]

    def _read_array(self, file: Path) -> Tensor:
        """One prepared image (C, H, W), or raw pixels by the rules of `data.pixels`."""
        try:
            found = self._pixels(np.load(file, allow_pickle=False), "the array")
        except (UserError, *UNREADABLE) as error:
            raise Refused(" ".join(str(error).split())[:160]) from error
        if len(found) != 1:
            raise Refused(f"{len(found)} images: expected one a file, or this file alone as --images")
        return found[0]


def preparation(reads: object) -> Preparation | None:
    """For a model that is known and that reads images; None for any other."""
    return Preparation(reads) if isinstance(reads, ModelInfo) and reads.input_shape[0] in MODES else None


def _transform(info: ModelInfo, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    from timm.data import create_transform

    return create_transform(
        input_size=(len(mean), *info.input_shape[1:]),
        is_training=False,
        interpolation=info.interpolation,
        mean=mean,
        std=std,
        crop_pct=info.crop_pct,
        crop_mode=info.crop_mode,
    )
