"""Figures of classes against scikit-learn and SciPy, and labels that are none of the classes."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import IMAGES, Array, noisy, value
from scipy.special import rel_entr, softmax
from sklearn.metrics import cohen_kappa_score, top_k_accuracy_score

from fimaq_deploy.measure.tasks.classes import CLASSES, NO_PREDICTION, predicted


def test_agreement_and_kappa_of_classes() -> None:
    own, original = noisy(7)
    a, b = own.argmax(1), original.argmax(1)
    assert value(CLASSES, "agreement", own, original) == pytest.approx(100 * (a == b).mean())
    assert value(CLASSES, "kappa", own, original) == pytest.approx(cohen_kappa_score(a, b))


def test_one_class_for_every_image_agrees_no_more_than_chance() -> None:
    _, original = noisy(2)
    original[:45, 0] += 99
    constant = np.tile(np.float32([1, 0]), (IMAGES, 1))
    assert value(CLASSES, "agreement", constant, original) > 75
    assert value(CLASSES, "kappa", constant, original) == pytest.approx(0)
    assert value(CLASSES, "kappa", constant, constant) == 1


def test_divergence_is_that_of_the_distributions_also_behind_a_softmax() -> None:
    own, original = noisy(7)
    p, q = softmax(original, 1), softmax(own, 1)
    expected = rel_entr(p.astype(float), q.astype(float)).sum(1).mean()
    assert value(CLASSES, "kl", own, original) == pytest.approx(expected, rel=1e-4)
    assert value(CLASSES, "kl", q, p) == pytest.approx(expected, rel=1e-4)


def test_the_label_is_among_the_first_as_scikit_learn_counts() -> None:
    own, _ = noisy(7)
    labels = np.arange(IMAGES) % 7
    for first in (1, 5):
        expected = top_k_accuracy_score(labels, own, k=first)
        assert value(CLASSES, f"top{first}", own, labels) == pytest.approx(100 * expected)


def test_among_equal_logits_the_lower_class_is_the_answer() -> None:
    own = np.zeros((3, 6), np.float32)
    assert predicted(own).tolist() == [0, 0, 0]
    assert value(CLASSES, "top1", own, np.array([0, 1, 5])) == pytest.approx(100 / 3)
    assert value(CLASSES, "top5", own, np.array([0, 1, 5])) == pytest.approx(200 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_answer_and_is_never_right(bad: float) -> None:
    own = np.float32([[9, 0, 0], [0, 9, bad]])
    assert predicted(own).tolist() == [0, NO_PREDICTION]
    assert value(CLASSES, "top1", own, np.array([0, 1])) == 50
    assert value(CLASSES, "agreement", own, own) == 50


@pytest.mark.parametrize(("width", "applies"), [(5, False), (6, True)])
def test_the_first_five_of_five_classes_say_nothing(width: int, applies: bool) -> None:
    own = np.zeros((2, width), np.float32)
    assert CLASSES.figure("top5").applies(own, np.array([0, 1])) is applies


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.array([0, 3]), "label 3: expected one of the 3 classes that the model outputs, from 0"),
        (np.array([-1, 0]), "label -1: expected one of the 3 classes that the model outputs, from 0"),
        (np.array([0.0, 1.0]), "labels are float64 (2,): expected one class an image, as integers"),
        (np.zeros((2, 3), int), "labels are int64 (2, 3): expected one class an image, as integers"),
        (np.array([2, 0]), None),
    ],
)
def test_labels_are_classes_that_the_model_has(labels: Array, told: str | None) -> None:
    assert CLASSES.refuse_labels(np.zeros((2, 3), np.float32), labels) == told
