from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fimaq_deploy.data.plausibility import label_doubts

RNG = np.random.default_rng(0)


def case(classes: int, images: int, right: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels, and predictions that are right on about that share and random otherwise."""
    labels = np.arange(images) % classes
    guesses = RNG.integers(0, classes, images)
    return np.where(RNG.random(images) < right, labels, guesses), labels


@pytest.mark.parametrize(
    ("classes", "images", "right"), [(10, 500, 0.9), (10, 500, 0.35), (1000, 5000, 0.3), (2, 60, 0.8)]
)
def test_a_model_that_works_raises_no_doubt(classes: int, images: int, right: float) -> None:
    predictions, labels = case(classes, images, right)
    assert label_doubts(predictions, labels, classes) == []


@pytest.mark.parametrize("order", ["text", "shifted", "reversed"])
@pytest.mark.parametrize("right", [0.65, 0.95])
def test_another_class_order_is_seen(order: str, right: float) -> None:
    predictions, labels = case(20, 400, right)
    ranks = {"text": sorted(range(20), key=str), "shifted": np.roll(np.arange(20), 1), "reversed": range(20)[::-1]}
    other = np.argsort(np.array(list(ranks[order])))[labels]
    (doubt,) = label_doubts(predictions, other, 20)
    assert doubt.startswith("the labels look like those of another class order: the original is right on ")
    assert "--class-map" in doubt


def test_guessing_is_seen() -> None:
    predictions, labels = case(10, 300, 0)
    (doubt,) = label_doubts(predictions, labels, 10)
    assert "near the 10 % of guessing: check the labels" in doubt


def test_a_model_that_always_says_the_same_is_near_guessing_and_not_in_another_order() -> None:
    labels = np.arange(200) % 10
    (doubt,) = label_doubts(np.full(200, 3), labels, 10)
    assert "near the 10 % of guessing" in doubt


def test_few_images_say_nothing() -> None:
    assert label_doubts(np.array([1, 2]), np.array([3, 4]), 10) == []
    assert label_doubts(np.array([], np.int64), np.array([], np.int64), 10) == []
