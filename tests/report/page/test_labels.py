from __future__ import annotations

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fimaq_deploy.report.page.canvas import WIDTH, add_key, name_axes
from fimaq_deploy.report.page.labels import Point, tell_apart


def drawn(points: list[Point], others: list[tuple[float, float]]) -> tuple[Axes, list[Bbox], list[Bbox]]:
    """The chart with the boxes of its names and of its markers, in pixels."""
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(WIDTH / 72, 270 / 72), layout="constrained")
        axes = figure.subplots()
        every = [*((x, y) for x, y, _ in points), *others]
        axes.scatter([x for x, _ in every], [y for _, y in every], s=62, label="a")
        name_axes(axes, "milliseconds", "top-1, %")
        add_key(axes)
        tell_apart(axes, points, others)
        figure.draw_without_rendering()
        names = [text.get_window_extent() for text in axes.texts]
        half = 4.0 * figure.dpi / 72
        places = [axes.transData.transform(place) - half for place in every]
        return axes, names, [Bbox.from_bounds(*place, 2 * half, 2 * half) for place in places]


@pytest.mark.parametrize("seed", range(12))
def test_names_lie_on_no_marker_and_on_no_other_name(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.uniform(0.5, 3, 8), random.uniform(60, 95, 8)
    points = [(float(a), float(b), f"recipe-{n}") for n, (a, b) in enumerate(zip(x[:4], y[:4], strict=True))]
    axes, names, markers = drawn(points, list(zip(x[4:].tolist(), y[4:].tolist(), strict=True)))
    assert not any(name.overlaps(marker) for name in names for marker in markers)
    assert not any(one.overlaps(other) for n, one in enumerate(names) for other in names[n + 1 :])
    room = axes.get_window_extent()
    assert all(room.contains(*name.min) and room.contains(*name.max) for name in names)


def test_equal_points_have_both_their_names() -> None:
    _, names, _ = drawn([(1.0, 90.0, "ours"), (1.0, 90.0, "theirs")], [(2.0, 80.0)])
    assert not names[0].overlaps(names[1])
