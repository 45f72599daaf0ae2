"""How images are prepared where the user knows better than the model's own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fimaq_deploy.contract import INTERPOLATIONS, RULES
from fimaq_deploy.errors import UserError, shown, within

CROP_MODES = tuple(RULES)

_LARGEST = 1e6  # of a mean or a standard deviation: raw pixels of 16 bits stay below it
_SMALLEST_STD = 1e-9


@dataclass(frozen=True)
class Preprocessing:
    """What the user says instead of the model; None leaves a field as the model has it.

    mean, std: of pixels in [0, 1], one number for all channels or one a channel.
    interpolation: one of INTERPOLATIONS. crop_pct: the share of the resized image's shorter side that the crop keeps.
    crop_mode: center cuts the shape of the model out of the image, squash and border change its shape or fill it up.
    bit_depth: of image files with more than 8 bits that hold fewer than they declare.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value that no image can be prepared with.
        """
        for value in self.mean or ():
            within("--mean", value, -_LARGEST, _LARGEST)
        for value in self.std or ():
            within("--std", value, _SMALLEST_STD, _LARGEST)
        if self.crop_pct is not None:
            within("--crop", self.crop_pct, 0.01, 1.0)
        if self.bit_depth is not None:
            within("--bit-depth", self.bit_depth, 8, 31)
        _one_of("--interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("--crop-mode", self.crop_mode, CROP_MODES)

    @classmethod
    def of_build(cls, document: Mapping[str, Any]) -> Preprocessing:
        """What a build's manifest says under `preprocessing`, so that images are prepared again as they were.

        Raises:
            UserError: something in it cannot be meant.
        """
        given: dict[str, Any] = {one.name: document.get(one.name) for one in fields(cls)}
        try:
            for name in ("mean", "std"):
                given[name] = None if given[name] is None else tuple(map(float, given[name]))
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise UserError(f"the preprocessing of the build cannot be read ({shown(str(error))})") from None

    def changes(self, channels: int) -> dict[str, Any]:
        """The fields that are said, for a model of so many channels.

        Raises:
            UserError: a mean or a standard deviation for another number of channels.
        """
        given: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        given["mean"], given["std"] = (_spread(name, given[name], channels) for name in ("mean", "std"))
        return {name: value for name, value in given.items() if value is not None}


def numbers(option: str, text: str | Sequence[float] | None) -> tuple[float, ...] | None:
    """Numbers that a user wrote with commas or spaces between them.

    Raises:
        UserError: there is none, or something else stands there.
    """
    if text is None or not isinstance(text, str):
        return None if text is None else tuple(text)
    words = text.replace(",", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        raise UserError(f"{option} {shown(text)}: expected numbers such as 0.485,0.456,0.406") from None
    if not found:
        raise UserError(f"{option} is empty: expected numbers such as 0.485,0.456,0.406")
    return found


def image_size(text: str | int | Sequence[int] | None) -> tuple[int, int] | None:
    """Height and width that a user wrote: 384, or 256x192.

    Raises:
        UserError: something else stands there.
    """
    if text is None:
        return None
    given = text.lower().replace("×", "x").split("x") if isinstance(text, str) else text
    sides = [given, given] if isinstance(given, int) else [*given] * (2 if len(given) == 1 else 1)
    try:
        height, width = (int(side) for side in sides)
    except (ValueError, TypeError):
        raise UserError(f"--image-size {shown(text)}: expected a side such as 384, or HEIGHTxWIDTH") from None
    return int(within("--image-size", height, 1, 16384)), int(within("--image-size", width, 1, 16384))


def _one_of(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise UserError(f"{option} {shown(value)}: expected one of {', '.join(known)}")


def _spread(name: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    if values is None or len(values) == channels:
        return values
    if len(values) != 1:
        raise UserError(
            f"--{name} has {len(values)} numbers, the model reads {channels} channels: expected 1 or {channels}"
        )
    return values * channels
