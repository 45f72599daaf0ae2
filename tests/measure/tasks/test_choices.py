"""Integers that a model chose: equal, or not."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import Array, value

from fimaq_deploy.measure.tasks.choices import CHOICES

ORIGINAL = np.array([[1, 2], [3, 4], [5, 6]])
OWN = np.array([[1, 2], [3, 0], [0, 0]])


def test_the_share_of_each_images_choices_is_averaged() -> None:
    assert value(CHOICES, "agreement", OWN, ORIGINAL) == pytest.approx(100 * (1 + 1 / 2 + 0) / 3)
    assert value(CHOICES, "right", OWN, ORIGINAL) == value(CHOICES, "agreement", OWN, ORIGINAL)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 4, 5)])
def test_choices_have_any_shape(shape: tuple[int, ...]) -> None:
    chosen = np.arange(np.prod(shape)).reshape(shape)
    assert CHOICES.fits(shape)
    assert value(CHOICES, "agreement", chosen, chosen) == 100
    assert value(CHOICES, "agreement", chosen + 1, chosen) == 0


@pytest.mark.parametrize("labels", [np.array([1, 3, 5]), ORIGINAL.astype(float)], ids=["shape", "type"])
def test_labels_are_integers_of_the_outputs_shape(labels: Array) -> None:
    told = f"labels are {labels.dtype} {labels.shape}: expected integers of the output's shape, (3, 2)"
    assert CHOICES.refuse_labels(OWN, labels) == told
    assert CHOICES.refuse_labels(OWN, ORIGINAL) is None
