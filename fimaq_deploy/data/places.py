"""Where an image lies in the input that is made of it, by the contract's rules: what is known about places goes there
with it, and what is found in the input comes back. Pillow and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.contract import Contract
from fimaq_deploy.errors import UserError

Array: TypeAlias = "NDArray[Any]"
Size = tuple[int, int]  # (height, width)

MOST_PIXELS = 2 * 89_478_485  # resized; where Pillow refuses to decode by default
_LEAST_SIDE = 1.0  # pixels of the input that a crop has to leave of an object


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

    def shown(self, boxes: Array, size: Size) -> tuple[Array, NDArray[np.bool_]]:
        """Boxes of the image, (D, 4), as float32 ones of the input, cut where it ends before the image does, and which
        of them are still in it: of a cut one a pixel of width and of height has to be left.

        size: (height, width) of the input.
        """
        scale, offset = (np.asarray(pair * 2, np.float32) for pair in (self.scale, self.offset))
        whole = np.asarray(boxes, np.float32) * scale + offset
        cut = whole.copy()
        for axis, side in ((0, size[1]), (1, size[0])):
            if self.size[1 - axis] * self.scale[axis] > side + 0.5:  # the image reaches beyond the input
                cut[:, axis::2] = np.clip(whole[:, axis::2], 0, side)
        sides = cut[:, 2:] - cut[:, :2]
        return cut, (cut == whole).all(1) | (sides >= _LEAST_SIDE).all(1)

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


def fitted(image: Image.Image, contract: Contract, fill: int | None = None) -> Image.Image:
    """Resized and cropped. fill: of one channel that stands for one of the model's, or for something beside it."""
    filled = fill if fill is not None else contract.fill if len(contract.fill) > 1 else contract.fill[0]
    resample = Image.Resampling[contract.interpolation.upper()]
    size = _RULES[contract.crop_mode]((image.height, image.width), contract.resize)
    if size[0] * size[1] > MOST_PIXELS:
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
