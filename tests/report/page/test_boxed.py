"""Labels stand at their own boxes, and none on another."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fimaq_deploy.report.page.boxed import Box, label_boxes
from fimaq_deploy.report.page.canvas import WIDTH


def drawn(boxes: Sequence[Box]) -> tuple[Axes, list[Bbox]]:
    """A picture one unit wide and high, and where its labels are, in pixels."""
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(WIDTH / 72, WIDTH / 72), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
        axes.set_axis_off()
        label_boxes(axes, [(box, f"crescent 0.9{number}", "#000000") for number, box in enumerate(boxes)])
        figure.draw_without_rendering()
        return axes, [text.get_window_extent() for text in axes.texts]


def apart(labels: Sequence[Bbox]) -> bool:
    return not any(one.overlaps(other) for n, one in enumerate(labels) for other in labels[n + 1 :])


def within(axes: Axes, labels: Sequence[Bbox]) -> bool:
    room = axes.get_window_extent()
    return all(room.contains(*one.min) and room.contains(*one.max) for one in labels)


@pytest.mark.parametrize("corner", [(0.3, 0.4), (0.0, 0.0), (0.7, 0.05), (0.75, 0.8)])
def test_boxes_that_start_at_one_place_have_labels_apart(corner: tuple[float, float]) -> None:
    left, top = corner
    axes, labels = drawn(
        [(left, top, left + wide, top + high) for wide, high in ((0.25, 0.2), (0.2, 0.15), (0.25, 0.2))]
    )
    assert apart(labels)
    assert within(axes, labels)


@pytest.mark.parametrize("seed", range(8))
def test_as_many_as_a_picture_has(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.6, (7, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.1, 0.4, (7, 2))], 1)
    axes, labels = drawn([tuple(box) for box in [*boxes.tolist(), *boxes[:2].tolist()]])
    assert apart(labels)
    assert within(axes, labels)


def test_one_alone_stands_on_its_upper_left_corner() -> None:
    axes, (label,) = drawn([(0.2, 0.5, 0.8, 0.9)])
    left, top = axes.transData.inverted().transform((label.x0, label.y0))
    assert (left, top) == (pytest.approx(0.2, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_a_box_beyond_the_picture_has_its_label_within() -> None:
    axes, labels = drawn([(-0.2, -0.3, 1.3, 1.2), (0.9, -0.1, 1.2, 0.3)])
    assert apart(labels)
    assert within(axes, labels)


def test_without_boxes_nothing_is_drawn() -> None:
    axes, labels = drawn([])
    assert not labels and not axes.patches
