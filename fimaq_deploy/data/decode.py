"""One image file as pixels of 8 bits, or as floats on the same scale where it has more.

timm reads a file as `Image.open(file).convert("RGB")`. So do we, with what that means: the first frame, no rotation by
EXIF, alpha dropped. The exception is what `convert` clips without a word: 16 bits and floats in one channel. Those keep
their precision as floats in [0, 255], scaled by the depth that their file declares, or that the user does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fimaq_deploy.data.listing import UNREADABLE, knows_suffix, open_image

Values: TypeAlias = "NDArray[Any]"

MODES = {1: "L", 3: "RGB"}

DEEP = "images with 16 bits a channel"
DEEP_COLOUR = "images with 16 bits in each of several channels, of which Pillow reads the upper 8"
FLOATS = "images of floats in [0, 1]"
FRAMES = "images of several frames, of which the first is read"
ROTATED = "images with an EXIF rotation, which is not applied, as in timm"  # Pillow itself applies that of a TIFF

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


class Refused(Exception):
    """A file that is not used, with the reason."""


@dataclass(frozen=True)
class Decoded:
    """image: of mode L, RGB or F, the last in [0, 255]. remarks: what is special about it.

    largest: the largest value before scaling, where it was scaled by its depth.
    """

    image: Image.Image
    remarks: tuple[str, ...] = ()
    largest: float | None = None


def decode_file(file: Path, channels: int, bit_depth: int | None = None) -> Decoded:
    """Raises:
    Refused: it is no image, damaged, too large, or of a scale that nothing says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of large images and of transparency in palettes
            with open_image(file, known=knows_suffix(file)) as image:
                return decode(image, channels, bit_depth)
    except Image.DecompressionBombError:
        raise Refused(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow refuses") from None
    except UNREADABLE as error:
        raise Refused(_reason(error)) from error


def decode(image: Image.Image, channels: int, bit_depth: int | None = None) -> Decoded:
    """An opened image. bit_depth: how many bits its values have, where its file does not say so.

    Raises:
        Refused: as `decode_file`, or the model reads neither 1 nor 3 channels.
        One of UNREADABLE: it is damaged.
    """
    if channels not in MODES:
        raise Refused(f"images feed 1 or 3 channels, the model reads {channels}: give arrays")
    remarks = tuple(_remarks(image))
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        floats, largest = _scaled(image, values, bit_depth)
        return Decoded(Image.fromarray(floats), (FLOATS if image.mode == "F" else DEEP, *remarks), largest)
    if bit_depth not in (None, 8, 16) and DEEP_COLOUR in remarks:
        raise Refused(f"of its {bit_depth} bits a channel Pillow reads too few: convert it to 8 bits")
    return Decoded(image.convert(MODES[channels]), remarks)


def _scaled(image: Image.Image, values: Values, bit_depth: int | None) -> tuple[NDArray[np.float32], float | None]:
    """Values of any scale as floats in [0, 255], and the largest of them where their depth was the scale."""
    least, largest, top = float(values.min()), float(values.max()), _top(image, bit_depth)
    if not 0 <= least <= largest <= top:  # also where they are NaN
        raise Refused(f"values from {least:,.6g} to {largest:,.6g}: expected 0 to {top:,}")
    floats = values.astype(np.float32) * np.float32(255 / top)
    inverted = image.mode != "F" and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    return np.float32(255) - floats if inverted else floats, None if top == 1 else largest


def _top(image: Image.Image, bit_depth: int | None) -> int:
    """The value of white."""
    if bit_depth is not None:
        return 2**bit_depth - 1
    if image.mode == "F":
        return 1
    if image.mode == "I" and image.format != "PPM":  # Pillow scales a PGM of any depth to 16 bits
        raise Refused("integers whose white nothing says: give the depth of their values with --bit-depth")
    bits = _tag(image, _BITS_PER_SAMPLE)
    return 2 ** (bits[0] if isinstance(bits, tuple) else 16) - 1


def _tag(image: Image.Image, number: int) -> Any:
    """A tag of a TIFF; None in other formats."""
    return getattr(image, "tag_v2", {}).get(number)


def _remarks(image: Image.Image) -> Iterator[str]:
    if _is_deep_colour(image):  # before the pixels are decoded, ever after nobody knows
        yield DEEP_COLOUR
    image.load()
    if _looked_at(lambda: getattr(image, "is_animated", False)) and image.format != "MPO":  # an MPO adds its preview
        yield FRAMES
    if _looked_at(lambda: image.getexif().get(_ORIENTATION, 1) not in (0, 1)):
        yield ROTATED


def _looked_at(ask: Callable[[], bool]) -> bool:
    """What is only worth a remark must not cost the image: damaged metadata breaks Pillow in any way."""
    try:
        return ask()
    except Exception:
        return False


def _is_deep_colour(image: Image.Image) -> bool:
    """16 bits in each of several channels: Pillow tells the decoder, and nobody else."""
    layouts = [str(part) for tile in getattr(image, "tile", ()) for part in _as_tuple(tile[3])]
    return image.mode in ("RGB", "RGBA", "LA", "CMYK") and any(";16" in layout for layout in layouts)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "no image that Pillow opens" if isinstance(error, Image.UnidentifiedImageError) else text[:100]
