"""Names beside the points of a chart, where they lie on no marker and on no other name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Point = tuple[float, float, str]
Place = tuple[float, float]

_MARKER = 6.0  # half its width, with some room, in points
_BESIDE = 10.0
_STEP = 7.0


def tell_apart(
    axes: Axes, points: Sequence[Point], others: Sequence[Place] = (), bars: Sequence[tuple[Place, Place]] = ()
) -> None:
    """Write each point's name beside it, and leave room for the names. Called when all else is drawn.

    others, bars: markers without a name, and intervals from one end to the other, that no name may lie on either.
    """
    right = max([x for x, _, _ in points] + [x for x, _ in others], default=1.0)
    axes.set_xlim(0, 1.25 * right)
    names = [_written(axes, point) for point in points]
    _figure(axes).draw_without_rendering()  # the layout that places are measured in
    taken = [_around(axes, x, y) for x, y in dict.fromkeys([*((x, y) for x, y, _ in points), *others])]
    taken += [_bar(axes, *bar) for bar in bars]
    for (x, _, _), name in zip(points, names, strict=True):
        taken.append(_placed(axes, name, taken, left_first=x > 0.62 * right))


def _written(axes: Axes, point: Point) -> Annotation:
    x, y, name = point
    found = axes.annotate(name, (x, y), xytext=(_BESIDE, 0), textcoords="offset points", va="center", zorder=4)
    found.set_in_layout(False)
    return found


def _placed(axes: Axes, name: Annotation, taken: Sequence[Bbox], left_first: bool) -> Bbox:
    """Move a name to the first place that is free, or to the one that covers the least."""
    room = axes.get_window_extent()
    best: tuple[int, tuple[float, float]] | None = None
    for place in _places(left_first):
        box = _moved(name, place)
        covered = sum(box.overlaps(one) for one in taken) + (
            0 if room.contains(*box.min) and room.contains(*box.max) else 9
        )
        if best is None or covered < best[0]:
            best = covered, place
        if not covered:
            break
    assert best is not None
    return _moved(name, best[1])


def _places(left_first: bool) -> Iterator[tuple[float, float]]:
    """Offsets from the point in points: beside it, then farther up and down on both sides, the nearest first."""
    sides = (-_BESIDE, _BESIDE) if left_first else (_BESIDE, -_BESIDE)
    for step in range(9):
        for upwards in (step * _STEP, -step * _STEP)[: 2 if step else 1]:
            yield from ((side, upwards) for side in sides)


def _moved(name: Annotation, place: tuple[float, float]) -> Bbox:
    name.set_position(place)
    name.set_horizontalalignment("left" if place[0] > 0 else "right")
    return name.get_window_extent()


def _around(axes: Axes, x: float, y: float) -> Bbox:
    from matplotlib.transforms import Bbox

    half = _MARKER * _figure(axes).dpi / 72
    left, low = axes.transData.transform((x, y)) - half
    return Bbox.from_bounds(left, low, 2 * half, 2 * half)


def _bar(axes: Axes, start: Place, end: Place) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([axes.transData.transform(start) - 1, axes.transData.transform(end) + 1])


def _figure(axes: Axes) -> Any:
    return axes.get_figure()
