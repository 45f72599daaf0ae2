"""Figures and tasks as data: what they are unless said otherwise, and what every kind of output keeps to."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import numpy as np
import pytest

from fimaq_deploy.measure.tasks.choices import CHOICES
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.measure.tasks.dense import dense, segmentation
from fimaq_deploy.measure.tasks.depth import DEPTH
from fimaq_deploy.measure.tasks.detection import DETECTION
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.multilabel import MULTILABEL
from fimaq_deploy.measure.tasks.regression import REGRESSION
from fimaq_deploy.measure.tasks.task import Figure, Kind, Task, weighted_mean

TASKS = (CLASSES, EMBEDDING, MULTILABEL, REGRESSION, dense(1), CHOICES, DETECTION, segmentation(1), DEPTH)


def differences(own: object, reference: object) -> object:
    return np.subtract(own, reference)


PLAIN = Figure("difference", "diff.", "differs by {value}", "original", differences)


def test_weights_say_how_often_an_image_counts() -> None:
    each, times = np.array([1.0, 2.0, 5.0]), np.array([2.0, 0.0, 1.0])
    assert weighted_mean(each, times) == pytest.approx(np.mean(np.repeat(each, times.astype(int))))


def test_a_figure_is_a_mean_over_images_unless_it_says_otherwise() -> None:
    parts = PLAIN.parts(np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    assert PLAIN.is_mean
    assert PLAIN.value(PLAIN.state(parts), np.ones(2)) == 1
    assert not Figure("spread", "", "", "original", differences, value=lambda state, weights: 0.0).is_mean


def test_a_task_takes_outputs_and_labels_as_they_are_unless_it_says_otherwise() -> None:
    task = Task("regression", (PLAIN,), lambda shape: True, "(N,)")
    outputs = np.arange(3)
    assert task.arrange(outputs) is outputs
    assert task.refuse_labels(outputs, np.array(["x"])) is None
    assert task.figure("difference") is PLAIN
    with pytest.raises(StopIteration):
        task.figure("other")


def test_neither_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        PLAIN.name = "x"  # type: ignore[misc]


def test_there_is_a_task_of_every_kind() -> None:
    assert {task.kind for task in TASKS} == set(get_args(Kind))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_figures_have_names_of_their_own_and_sentences_to_fill(task: Task) -> None:
    assert len({figure.name for figure in task.figures}) == len(task.figures)
    for figure in task.figures:
        told = figure.told.format(value="7", other="PyTorch")
        assert "7" in told
        assert "PyTorch" in told or figure.of == "labels"
        assert not figure.share or figure.unit == "%"


@pytest.mark.parametrize(
    ("task", "fitting", "other"),
    [
        (CLASSES, [(4, 2)], [(4,), (4, 1), (4, 5, 2)]),
        (EMBEDDING, [(4, 2)], [(4,), (4, 1), (4, 5, 2)]),
        (MULTILABEL, [(4, 1), (4, 2)], [(4,), (4, 5, 2)]),
        (REGRESSION, [(4,), (4, 1), (4, 2)], [(4, 5, 2)]),
        (dense(1), [(4, 5, 2), (4, 5, 2, 2)], [(4,), (4, 2)]),
        (CHOICES, [(4,), (4, 2), (4, 5, 2)], []),
        (DETECTION, [(4, 5, 6), (4, 5, 582)], [(4,), (4, 5, 2), (4, 5, 6, 6)]),
        (segmentation(1), [(4, 5, 2, 2)], [(4, 5), (4, 5, 2)]),
        (DEPTH, [(4, 5, 2), (4, 1, 5, 2)], [(4, 5), (4, 2, 5, 2)]),
    ],
)
def test_shapes_that_fit(task: Task, fitting: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    assert [task.fits(shape) for shape in fitting + other] == [True] * len(fitting) + [False] * len(other)
