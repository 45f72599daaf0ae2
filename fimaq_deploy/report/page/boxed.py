"""Boxes in a picture with their labels, each at its own box and on no other label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fimaq_deploy.report.page.canvas import FONT_SIZE, INK, SURFACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in the picture's units, of which y counts down."""

_SIZE = 0.9 * FONT_SIZE
_PAD = 0.15  # around a label, in its font's size
_STEPS = 12  # lines that a label may be moved away from its corner


def label_boxes(axes: Axes, labels: Sequence[tuple[Box, str, str]]) -> None:
    """Draw boxes and write their labels, in this order. labels: a box, its label and its colour.

    A label stands on its box's upper left corner; where that is taken or outside, at the next corner, inside or
    outside, and then line by line farther away. Called when the limits of the axes stand.
    """
    for box, _, colour in labels:
        _outline(axes, box, colour)
    if not labels:
        return
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()  # the layout that places are measured in
    taken: list[Bbox] = []
    for box, text, _ in labels:
        label = _written(axes, text)
        taken.append(_placed(axes, label, box, taken))


def _outline(axes: Axes, box: Box, colour: str) -> None:
    from matplotlib.patches import Rectangle

    for line, wide in ((SURFACE, 3.6), (colour, 1.8)):
        size = box[2] - box[0], box[3] - box[1]
        axes.add_patch(Rectangle(box[:2], *size, fill=False, edgecolor=line, linewidth=wide))


def _written(axes: Axes, text: str) -> Text:
    ground = {"boxstyle": f"square,pad={_PAD}", "facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8}
    found = axes.text(0, 0, text, fontsize=_SIZE, color=INK, va="bottom", clip_on=True, bbox=ground)
    found.set_in_layout(False)
    return found


def _placed(axes: Axes, label: Text, box: Box, taken: Sequence[Bbox]) -> Bbox:
    """Move a label to the first place that is free, or to the one that covers the least; its extent in pixels."""
    from matplotlib.transforms import Bbox

    figure: Any = axes.get_figure()
    pad = _PAD * _SIZE * figure.dpi / 72
    size = label.get_window_extent().padded(pad)
    room = axes.get_window_extent()
    (left, low), (right, high) = axes.transData.transform([(box[0], box[3]), (box[2], box[1])])
    left, right = (min(max(edge, room.x0), room.x1) for edge in (left, right))
    low, high = (min(max(edge, room.y0), room.y1) for edge in (low, high))
    edges = Bbox.from_extents(left, low, right, high)
    found = [Bbox.from_bounds(x, y, size.width, size.height) for x, y in _corners(edges, size.width, size.height)]
    best = min(found, key=lambda one: _covered(one, taken) + 2 * _outside(one, room))
    x, y = axes.transData.inverted().transform((best.x0 + pad, best.y0 + pad))
    label.set_position((float(x), float(y)))
    return best


def _corners(edges: Bbox, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Lower left corners of a label, the best first, in pixels that count up."""
    columns = (edges.x0, edges.x1 - width)
    for row in (edges.y1, edges.y1 - height, edges.y0 - height, edges.y0):
        yield from ((column, row) for column in columns)
    for step in range(1, _STEPS):
        yield from ((column, edges.y1 + move * height) for move in (step, -1 - step) for column in columns)


def _covered(one: Bbox, taken: Sequence[Bbox]) -> float:
    return sum(_common(one, other) for other in taken)


def _outside(one: Bbox, room: Bbox) -> float:
    return one.width * one.height - _common(one, room)


def _common(one: Bbox, other: Bbox) -> float:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(wide, 0.0) * max(high, 0.0)
