"""An image as the contract says, without torchvision: Pillow and NumPy do what timm's evaluation transform does.

The same operations on the same numbers in the same order, so that the result is the builder's, bit by bit
(`docs/log/2026-11-27-runtime.md` has what was measured): Pillow resizes bytes, the crop is cut where timm cuts it, and
`(pixel / 255 - mean) / std` is computed in float32. Images of more than 8 bits are resized as
floats, channel by channel.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.contract import COLOURS, Contract
from fimaq_deploy.data.decode import Refused, decode, decode_file
from fimaq_deploy.data.listing import UNREADABLE, open_image, printable
from fimaq_deploy.errors import UserError

Array: TypeAlias = "NDArray[Any]"
Size = tuple[int, int]  # (height, width)

_FLOATS = "F"
_MOST_PIXELS = 2 * 89_478_485  # resized; where Pillow refuses to decode by default


@dataclass(frozen=True)
class Place:
    """Where an image lies in the input that was made of it: input = image * scale + offset, of pixels as (x, y).

    size: (height, width) of the image.
    """

    size: Size
    scale: tuple[float, float]
    offset: tuple[float, float]

    def boxes(self, boxes: Array) -> Array:
        """Boxes of the input, (D, 4), left, top, right and bottom, as those of the image, cut at its edges."""
        scale, offset = (np.asarray(pair * 2, np.float64) for pair in (self.scale, self.offset))
        height, width = self.size
        return np.clip((boxes - offset) / scale, 0, [width, height, width, height])

    def plane(self, values: Array, outside: float = 0.0) -> Array:
        """Values of the input's pixels (h, w) as those of the image's (H, W), float32, in between bilinear."""
        height, width = self.size
        (x, y), (left, top) = self.scale, self.offset
        source = Image.fromarray(np.ascontiguousarray(values, np.float32))
        data = (x, 0, left, 0, y, top)
        # Pillow interpolates nothing within half a pixel of an edge: it takes nearest pixels there.
        smooth, plain = (
            np.array(source.transform((width, height), Image.Transform.AFFINE, data, resample, fillcolor=outside))
            for resample in (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
        )
        across = (np.arange(width) + 0.5) * x + left
        down = (np.arange(height) + 0.5) * y + top
        inner = [
            (one >= 0.5) & (one <= side - 0.5) for one, side in ((down, values.shape[0]), (across, values.shape[1]))
        ]
        return np.where(inner[0][:, None] & inner[1][None], smooth, plain)


@dataclass(frozen=True)
class Preparation:
    """From an image to one input, without the batch: float32 (C, H, W), or uint8 (H, W, C).

    most_pixels: of an image in bytes, which nobody has chosen to trust.
    """

    contract: Contract
    most_pixels: int = _MOST_PIXELS

    def __call__(self, image: object) -> Array:
        """image: a path, a PIL image, uint8 pixels (H, W) or (H, W, C), or the bytes of an image file.

        Raises:
            UserError: it cannot be read, or is of another kind.
        """
        return self.placed(image)[0]

    def placed(self, image: object) -> tuple[Array, Place]:
        """The same, and where the image lies in it. Raises as calling it does."""
        if self.contract.colour is None:
            channels = self.contract.shape[0]
            raise UserError(f"the model reads {channels} channels, which no image file has: give prepared arrays")
        decoded = self._decoded(image)
        return self._finished(decoded), place((decoded.height, decoded.width), self.contract)

    def _decoded(self, image: object) -> Image.Image:
        channels, depth = self.contract.shape[0], self.contract.bit_depth
        if isinstance(image, (str, Path)):
            try:
                return decode_file(Path(image), channels, depth).image
            except Refused as error:
                raise UserError(f"image {printable(Path(image))}: {error}") from error
        if isinstance(image, bytes):
            return self._of_bytes(image)
        opened = _of_pixels(image) if isinstance(image, np.ndarray) else image
        if not isinstance(opened, Image.Image):
            kind = type(image).__name__
            raise UserError(f"an image is a {kind}: expected a path, a PIL image or uint8 pixels (H, W, C)")
        try:
            return decode(opened, channels, depth).image
        except (Refused, *UNREADABLE) as error:
            raise UserError(f"a PIL image of mode {opened.mode} is not used: {error}") from error

    def _of_bytes(self, data: bytes) -> Image.Image:
        """Looked at before it is decoded, by formats that begin with a mark."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with open_image(io.BytesIO(data), known=False) as image:
                    if image.width * image.height > self.most_pixels:
                        size = f"{image.width}×{image.height}"
                        raise UserError(f"the image has {size} pixels: expected at most {self.most_pixels:,}")
                    return decode(image, self.contract.shape[0], self.contract.bit_depth).image
        except (Refused, *UNREADABLE) as error:
            told = " ".join(str(error).split())[:100] or type(error).__name__
            raise UserError(f"the image cannot be read ({told}): expected one that Pillow opens") from None

    def _finished(self, image: Image.Image) -> Array:
        if self.contract.resizing is not None:
            return _as_decoded(image)
        if image.mode != _FLOATS:
            pixels = _channels_last(np.asarray(fitted(image, self.contract)))
            return pixels if self.contract.pixels else self._normalised(pixels.astype(np.float32) / np.float32(255))
        planes = [np.asarray(fitted(image, self.contract, fill)) for fill in self.contract.fill]
        values = np.clip(np.stack(planes, axis=-1), np.float32(0), np.float32(255))
        if self.contract.pixels:
            return np.rint(values).astype(np.uint8)
        return self._normalised(values / np.float32(255))

    def _normalised(self, values: Array) -> Array:
        """values: float32 (H, W, C) in [0, 1]."""
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.contract.mean, self.contract.std))
        return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


def fitted(image: Image.Image, contract: Contract, fill: int | None = None) -> Image.Image:
    """Resized and cropped. fill: of an image of floats, whose one channel stands for one of the model's."""
    filled = fill if fill is not None else contract.fill if len(contract.fill) > 1 else contract.fill[0]
    resample = Image.Resampling[contract.interpolation.upper()]
    size = _RULES[contract.crop_mode]((image.height, image.width), contract.resize)
    if size[0] * size[1] > _MOST_PIXELS:
        raise UserError(f"an image of {image.width}×{image.height} would be {size[1]}×{size[0]} resized: crop it first")
    if size != (image.height, image.width):
        image = image.resize((size[1], size[0]), resample)
    return _cropped(image, contract.shape[1:], filled)


def place(size: Size, contract: Contract) -> Place:
    """Where an image of a size lies in an input. size: (height, width)."""
    resized = _RULES[contract.crop_mode](size, contract.resize)
    corner = [_corner(have, want) for have, want in zip(resized, contract.shape[1:], strict=True)]
    return Place(size, (resized[1] / size[1], resized[0] / size[0]), (float(corner[1]), float(corner[0])))


def _shorter(size: Size, wanted: Size) -> Size:
    """So that the image covers the size. A square is torchvision's resize of the shorter side, which rounds down."""
    height, width = size
    if wanted[0] != wanted[1]:
        return _at_ratio(size, min(height / wanted[0], width / wanted[1]))
    short, long = sorted(size)
    longer = int(wanted[0] * long / short)
    return (longer, wanted[0]) if width <= height else (wanted[0], longer)


def _longer(size: Size, wanted: Size) -> Size:
    """So that the image fits inside."""
    return _at_ratio(size, max(size[0] / wanted[0], size[1] / wanted[1]))


def _both(size: Size, wanted: Size) -> Size:
    return wanted


_RULES: dict[str, Callable[[Size, Size], Size]] = {"center": _shorter, "border": _longer, "squash": _both}


def _at_ratio(size: Size, ratio: float) -> Size:
    height, width = (max(1, round(side / ratio)) for side in size)
    return height, width


def _cropped(image: Image.Image, size: Size, fill: Any) -> Image.Image:
    """The middle; where the image is smaller, in the middle of a filled one, half a pixel up and left."""
    height, width = size
    left, top = _corner(image.width, width), _corner(image.height, height)
    if image.width < width or image.height < height:
        whole = Image.new(image.mode, (max(image.width, width), max(image.height, height)), fill)
        whole.paste(image, (max(0, left), max(0, top)))
        image = whole
    left, top = max(0, -left), max(0, -top)
    return image.crop((left, top, left + width, top + height))


def _corner(side: int, wanted: int) -> int:
    """Where an image of a side begins in its crop: in front of it, so below zero, where it is larger."""
    return (wanted - side) // 2 if side < wanted else -round((side - wanted) / 2)


def _of_pixels(pixels: Array) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in COLOURS):
        raise UserError(
            f"pixels are {pixels.dtype} of shape {pixels.shape}: expected uint8 (H, W), (H, W, 1) or (H, W, 3)"
        )
    if 0 in pixels.shape:
        raise UserError(f"pixels have shape {pixels.shape}: expected at least one pixel")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _as_decoded(image: Image.Image) -> Array:
    """The pixels of an image for a file that resizes them."""
    if image.mode == _FLOATS:
        raise UserError("an image of more than 8 bits is resized as floats, which no file does: take model.onnx for it")
    return _channels_last(np.asarray(image))


def _channels_last(pixels: Array) -> Array:
    return pixels if pixels.ndim == 3 else pixels[..., None]
