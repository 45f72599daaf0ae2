"""A few images: what the original finds in them, and beside it what is deployed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from fimaq_deploy.report.page.boxed import Box, label_boxes
from fimaq_deploy.report.page.canvas import SERIES, WIDTH
from fimaq_deploy.report.page.parts import Exhibit, Panel, Section
from fimaq_deploy.report.schema import Answer, Object, Picture, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOUT = (
    "The first evaluation images, as the model reads them. They show what the figures mean, not how large they are."
)
_PADDING = 0.02  # of a picture's side, for the lines of boxes at its edge
_MASK = 0.45  # how much of an image a mask covers
_SAME = 0.5  # the overlap of two boxes of one object


def pictures(report: Report) -> Section:
    return Section("pictures", "Pictures", _ABOUT, _exhibits(report))


def _exhibits(report: Report) -> tuple[Exhibit, ...]:
    other = _compared(report)
    if other is None:
        return ()
    rows = [report.baseline, other]
    answers = [answer for picture in report.pictures for answer in picture.answers]
    mapped = any(answer.classes for answer in answers)
    return (
        Exhibit(
            "pictures",
            f"{report.baseline.title} beside {other.title}",
            _note(mapped, any(answer.masks for answer in answers)),
            () if mapped else ("picture", *(row.title for row in rows)),
            () if mapped else tuple(_line(number, picture, rows) for number, picture in enumerate(report.pictures, 1)),
            panels=tuple(
                Panel(f"{row.title}, picture {number}", _painter(picture, rows[0], row), _height(picture))
                for number, picture in enumerate(report.pictures, 1)
                for row in rows
            ),
        ),
    )


def _note(mapped: bool, masked: bool) -> str:
    if mapped:
        return "Each pixel in the colour of its class."
    masks = ", and their masks" if masked else ""
    return f"Objects that it is sure of by at least 50 %, with their labels and scores{masks}."


def _compared(report: Report) -> Row | None:
    """The first row that is deployed and was pictured, else the first one after the original."""
    if not report.pictures:
        return None
    shown = {answer.row for answer in report.pictures[0].answers} - {report.baseline.id}
    rows = [row for row in (*report.deployed, *report.rows) if row.id in shown]
    return rows[0] if rows else None


def _line(number: int, picture: Picture, rows: Sequence[Row]) -> tuple[str, ...]:
    return (str(number), *(_told(_answer(picture, row)) for row in rows))


def _told(answer: Answer | None) -> str:
    if answer is None:
        return ""
    return ", ".join(f"{one.label} {one.score:.0%}".replace("%", " %") for one in answer.objects) or "nothing"


def _answer(picture: Picture, row: Row) -> Answer | None:
    return next((answer for answer in picture.answers if answer.row == row.id), None)


def _height(picture: Picture) -> float:
    """In CSS pixels, so that the picture keeps its shape."""
    return WIDTH * (picture.height / picture.width + 2 * _PADDING) / (1 + 2 * _PADDING)


def _painter(picture: Picture, original: Row, row: Row) -> Callable[[Axes], None]:
    """One picture, one unit wide, and what a row found in it, in the colours that the original's objects have."""
    high, answer = picture.height / picture.width, _answer(picture, row)
    colours = _colours(_objects(answer), _objects(_answer(picture, original)))

    def paint(axes: Axes) -> None:
        axes.imshow(_opened(picture.image), extent=(0, 1, high, 0), aspect="auto", interpolation="nearest")
        for over in _overlays(answer, colours):
            axes.imshow(over, extent=(0, 1, high, 0), aspect="auto", interpolation="nearest")
        axes.set_xlim(-_PADDING, 1 + _PADDING)
        axes.set_ylim(high + _PADDING, -_PADDING)
        axes.set_aspect("equal")
        axes.set_axis_off()
        label_boxes(axes, _labels(picture, _objects(answer), colours))

    return paint


def _objects(answer: Answer | None) -> Sequence[Object]:
    return answer.objects if answer else ()


def _colours(objects: Sequence[Object], original: Sequence[Object]) -> list[str]:
    """A colour for each object: that of the original's object of the same label that overlaps most, else one left."""
    near = sorted(
        (
            (-overlap, number, other)
            for number, one in enumerate(objects)
            for other, theirs in enumerate(original)
            if one.label == theirs.label and (overlap := _overlap(one.box, theirs.box)) > _SAME
        ),
    )
    taken: dict[int, int] = {}
    for _, number, other in near:
        if number not in taken and other not in taken.values():
            taken[number] = other
    left = (place for place in count() if place not in taken.values())
    return [SERIES[(taken[number] if number in taken else next(left)) % len(SERIES)] for number in range(len(objects))]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two boxes, their intersection over their union."""
    width, height = (min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1))
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _overlays(answer: Answer | None, colours: Sequence[str]) -> list[Any]:
    if answer is None:
        return []
    masks = [_masked(answer.masks, colours)] if answer.masks and colours else []
    return [*masks, *([_coloured(answer.classes)] if answer.classes else [])]


def _labels(picture: Picture, objects: Sequence[Object], colours: Sequence[str]) -> list[tuple[Box, str, str]]:
    """Boxes in parts of the picture's width, what is written at them, and their colours."""
    found = []
    for one, colour in zip(objects, colours, strict=True):
        left, top, right, bottom = (edge / picture.width for edge in one.box)
        found.append(((left, top, right, bottom), f"{one.label} {one.score:.2f}", colour))
    return found


def _opened(encoded: str) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        return np.asarray(image)


def _masked(encoded: str, colours: Sequence[str]) -> Any:
    """Which object each pixel is of as the colour of its box with alpha; none is left clear."""
    import numpy as np
    from matplotlib.colors import to_rgba_array

    whose = _opened(encoded)
    shown = to_rgba_array(colours)[(whose.astype(int) - 1) % len(colours)]
    shown[..., 3] = np.where(whose == 0, 0.0, _MASK)
    return shown


def _coloured(encoded: str) -> Any:
    """The class of each pixel as a colour with alpha; the first class, mostly the background, is left clear."""
    import numpy as np
    from matplotlib import colormaps

    classes = _opened(encoded)
    shown = colormaps["tab20"](classes % 20)
    shown[..., 3] = np.where(classes == 0, 0.0, 0.65)
    return shown
