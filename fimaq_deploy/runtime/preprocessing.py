"""An image as the contract says, without torchvision: Pillow and NumPy do what timm's evaluation transform does.

The same operations on the same numbers in the same order, so that the result is the builder's, bit by bit
(`docs/log/2026-11-27-runtime.md` has what was measured): Pillow resizes bytes, the crop is cut where timm cuts it, and
`(pixel / 255 - mean) / std` is computed in float32. Images of more than 8 bits are resized as
floats, channel by channel.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.contract import COLOURS, Contract
from fimaq_deploy.data.decode import Refused, decode, decode_file
from fimaq_deploy.data.listing import UNREADABLE, open_image, printable
from fimaq_deploy.data.places import MOST_PIXELS, Place, fitted, place
from fimaq_deploy.errors import UserError

__all__ = ["Place", "Preparation", "place"]

Array: TypeAlias = "NDArray[Any]"

_FLOATS = "F"


@dataclass(frozen=True)
class Preparation:
    """From an image to one input, without the batch: float32 (C, H, W), or uint8 (H, W, C).

    most_pixels: of an image in bytes, which nobody has chosen to trust.
    """

    contract: Contract
    most_pixels: int = MOST_PIXELS

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
