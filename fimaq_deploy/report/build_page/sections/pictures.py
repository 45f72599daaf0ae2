"""A few images: what the original finds in them, and below it what is deployed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fimaq_deploy.report.page.canvas import FONT_SIZE, INK, SERIES, SURFACE, WIDTH
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Answer, Picture, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ABOUT = (
    "The first evaluation images, as the model reads them. They show what the figures mean, not how large they are."
)
_GAP = 0.06  # of a picture's side
_CAPTION = 0.16


def pictures(report: Report) -> Section:
    return Section("pictures", "Pictures", _ABOUT, _exhibits(report))


def _exhibits(report: Report) -> tuple[Exhibit, ...]:
    other = _compared(report)
    if other is None:
        return ()
    rows = [report.baseline, other]
    mapped = any(answer.classes for picture in report.pictures for answer in picture.answers)
    return (
        Exhibit(
            "pictures",
            f"{report.baseline.title} above, {other.title} below",
            "Each pixel in the colour of its class."
            if mapped
            else "Objects that it is sure of by at least 50 %, with their labels and scores.",
            () if mapped else ("picture", *(row.title for row in rows)),
            () if mapped else tuple(_line(number, picture, rows) for number, picture in enumerate(report.pictures, 1)),
            paint=_painter(report.pictures, rows),
            height=_height(report.pictures),
        ),
    )


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


def _height(shown: Sequence[Picture]) -> float:
    """In CSS pixels, so that pictures keep their shape."""
    wide = len(shown) * (1 + _GAP)
    tall = max(picture.height / picture.width for picture in shown)
    return WIDTH / wide * 2 * (tall + _CAPTION)


def _painter(shown: Sequence[Picture], rows: Sequence[Row]) -> Callable[[Axes], None]:
    tall = max(picture.height / picture.width for picture in shown)

    def paint(axes: Axes) -> None:
        for down, row in enumerate(rows):
            top = down * (tall + _CAPTION) + _CAPTION
            axes.text(0, top - 0.03, row.title, fontsize=FONT_SIZE, color=INK, va="bottom")
            for across, picture in enumerate(shown):
                _paint(axes, picture, _answer(picture, row), across * (1 + _GAP), top)
        axes.set_xlim(0, len(shown) * (1 + _GAP) - _GAP)
        axes.set_ylim(len(rows) * (tall + _CAPTION), 0)
        axes.set_aspect("equal")
        axes.set_axis_off()

    return paint


def _paint(axes: Axes, picture: Picture, answer: Answer | None, left: float, top: float) -> None:
    """One picture, one unit wide, and what was found in it."""
    high = picture.height / picture.width
    place = (left, left + 1, top + high, top)
    axes.imshow(_opened(picture.image), extent=place, aspect="auto", interpolation="nearest")
    if answer is None:
        return
    if answer.classes:
        axes.imshow(_coloured(answer.classes), extent=place, aspect="auto", interpolation="nearest")
    for one in answer.objects:
        _paint_object(axes, one.box, f"{one.label} {one.score:.2f}", picture.width, left, top)


def _paint_object(axes: Axes, box: Sequence[float], text: str, width: int, left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    near = left + box[0] / width, top + box[1] / width
    size = (box[2] - box[0]) / width, (box[3] - box[1]) / width
    for colour, line in ((SURFACE, 2.4), (SERIES[0], 1.2)):
        axes.add_patch(Rectangle(near, *size, fill=False, edgecolor=colour, linewidth=line))
    label = {"boxstyle": "square,pad=0.1", "facecolor": SURFACE, "edgecolor": "none", "alpha": 0.75}
    axes.text(*near, text, fontsize=0.55 * FONT_SIZE, color=INK, va="bottom", clip_on=True, bbox=label)


def _opened(encoded: str) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        return np.asarray(image)


def _coloured(encoded: str) -> Any:
    """The class of each pixel as a colour with alpha; the first class, mostly the background, is left clear."""
    import numpy as np
    from matplotlib import colormaps

    classes = _opened(encoded)
    shown = colormaps["tab20"](classes % 20)
    shown[..., 3] = np.where(classes == 0, 0.0, 0.65)
    return shown
