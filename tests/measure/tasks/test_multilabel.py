"""Figures of several labels an image against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import IMAGES, noisy, value
from sklearn.metrics import average_precision_score, cohen_kappa_score

from fimaq_deploy.measure.tasks.multilabel import MULTILABEL


@pytest.mark.parametrize("steps", [0, 3])
def test_mean_average_precision_is_that_of_scikit_learn(steps: int) -> None:
    """With equal scores too. The last label has no image."""
    own, original = noisy(7)
    own = np.round(own * steps) / steps if steps else own
    labels = (original > 0.5).astype(np.int64)
    labels[:, -1] = 0
    expected = np.mean([average_precision_score(labels[:, c], own[:, c]) for c in range(6)])
    assert value(MULTILABEL, "map", own, labels) == pytest.approx(100 * expected)


def test_resampled_precision_is_that_of_the_repeated_images() -> None:
    own, original = noisy(3)
    labels, figure = (original > 0.5).astype(np.int64), MULTILABEL.figure("map")
    weights = np.random.default_rng(3).integers(0, 4, IMAGES)
    drawn = np.repeat(np.arange(IMAGES), weights)
    state = figure.state(figure.parts(own, labels))
    expected = np.mean([average_precision_score(labels[drawn, c], own[drawn, c]) for c in range(3)])
    assert figure.value(state, weights.astype(float)) == pytest.approx(expected)


def test_labels_agree_one_by_one() -> None:
    own, original = np.float32([[1, -1, 1], [-1, -1, 1]]), np.float32([[1, -1, -1], [-1, -1, 1]])
    assert value(MULTILABEL, "agreement", own, original) == pytest.approx(100 * 5 / 6)
    assert value(MULTILABEL, "worst_agreement", own, original) == pytest.approx(50)


def test_probabilities_say_yes_above_a_half() -> None:
    own, original = noisy(7)
    a, b = 1 / (1 + np.exp(-own)), 1 / (1 + np.exp(-original))
    for name in ("agreement", "kappa"):
        assert value(MULTILABEL, name, a, b) == pytest.approx(value(MULTILABEL, name, own, original))


def test_rare_labels_agree_by_chance() -> None:
    _, original = noisy(20)
    absent = np.full_like(original, -9)
    rare = np.where(original > 2, 1, -1).astype(np.float32)
    assert value(MULTILABEL, "agreement", absent, rare) > 95
    assert value(MULTILABEL, "kappa", absent, rare) == pytest.approx(0, abs=1e-6)


def test_kappa_of_one_label_is_that_of_scikit_learn() -> None:
    own, original = noisy(1)
    expected = cohen_kappa_score(own[:, 0] > 0, original[:, 0] > 0)
    assert value(MULTILABEL, "kappa", own, original) == pytest.approx(expected)


def test_a_score_that_is_not_finite_agrees_with_nothing() -> None:
    original = np.float32([[1, -1], [1, -1]])
    own = original.copy()
    own[0, 1] = np.nan
    assert value(MULTILABEL, "agreement", own, original) == 75
    assert value(MULTILABEL, "worst_agreement", own, original) == 50


def test_without_any_image_of_any_label_there_is_no_precision() -> None:
    own, _ = noisy(3)
    assert np.isnan(value(MULTILABEL, "map", own, np.zeros_like(own, int)))


@pytest.mark.parametrize("labels", [[[0, 2]], [[0, 0.5]], [[0, 1, 1]], [1]], ids=str)
def test_labels_are_0_or_1_for_each(labels: list[object]) -> None:
    own, given = np.zeros((1, 2), np.float32), np.asarray(labels)
    told = MULTILABEL.refuse_labels(own, given)
    assert told == f"labels are {given.dtype} {given.shape}: expected 0 or 1 for each of the 2 labels"
    assert MULTILABEL.refuse_labels(own, np.array([[1, 0]])) is None
