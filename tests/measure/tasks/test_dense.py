"""Figures of tokens and maps: where their vectors lie, and what a pixel counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fixtures.figures import IMAGES, noisy, value
from sklearn.metrics import jaccard_score

from fimaq_deploy.measure.tasks.dense import channel_axis, dense, segmentation


@pytest.mark.parametrize(
    ("shape", "features", "axis"),
    [
        ((2, 17, 96), None, 2),
        ((2, 96, 17), 96, 1),
        ((2, 21, 32, 32), None, 1),
        ((2, 8, 8, 96), None, 3),
        ((2, 8, 9, 96), 96, 3),
        ((2, 8, 9, 96), None, 1),
        ((2, 8, 8, 8), None, 1),
    ],
)
def test_where_the_vectors_lie(shape: tuple[int, ...], features: int | None, axis: int) -> None:
    assert channel_axis(shape, features) == axis


@pytest.mark.parametrize(("shape", "axis"), [((9, 16), 2), ((16, 3, 3), 1), ((3, 3, 16), 3)])
def test_positions_are_averaged(shape: tuple[int, ...], axis: int) -> None:
    own, original = noisy(*shape)
    a, b = (np.moveaxis(one, axis, -1).reshape(-1, 16) for one in (own, original))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    error = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
    assert value(dense(axis), "cosine", own, original) == pytest.approx(cosine.mean(), rel=1e-5)
    assert value(dense(axis), "relative_error", own, original) == pytest.approx(100 * error.mean(), rel=1e-5)


def test_a_map_of_one_channel_is_one_vector() -> None:
    own, original = noisy(1, 4, 4)
    a, b = own.reshape(IMAGES, -1), original.reshape(IMAGES, -1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert value(dense(1), "cosine", own, original) == pytest.approx(cosine.mean(), rel=1e-5)


@pytest.mark.parametrize("axis", [1, 3])
def test_mean_iou_is_that_of_scikit_learn(axis: int) -> None:
    own, original = noisy(4, 6, 6)
    labels = original.argmax(1)
    found = value(dense(axis), "miou", own if axis == 1 else np.moveaxis(own, 1, 3), labels)
    expected = jaccard_score(labels.ravel(), own.argmax(1).ravel(), average="macro")
    assert found == pytest.approx(100 * expected)


def test_pixels_that_nobody_named_do_not_count_and_small_maps_are_enlarged() -> None:
    own = np.zeros((1, 2, 2, 2), np.float32)
    own[0, 0, :, 0] = own[0, 1, :, 1] = 9  # left and right half
    labels = np.zeros((1, 8, 8), np.int64)
    labels[:, :, 4:] = 1
    assert value(dense(1), "miou", own, labels) == 100
    labels[:, :4] = 255
    assert value(dense(1), "miou", own, labels) == 100
    labels[:, 4:] = 0
    assert value(dense(1), "miou", own, labels) == pytest.approx(100 * (1 / 2 + 0) / 2)


def test_values_of_a_map_are_measured_by_their_mean_error() -> None:
    own, original = noisy(1, 4, 4)
    labels = original[:, 0].astype(np.float64)
    assert value(dense(1), "mae", own, labels) == pytest.approx(np.abs(own[:, 0] - labels).mean())


@pytest.mark.parametrize(
    ("channels", "labels", "figures"),
    [
        (3, np.zeros((1, 2, 2), int), {"miou"}),
        (1, np.zeros((1, 2, 2), int), set()),
        (1, np.zeros((1, 2, 2)), {"mae"}),
        (3, np.zeros((1, 2, 2, 3)), {"mae"}),
    ],
)
def test_labels_tell_which_figures_apply(channels: int, labels: Any, figures: set[str]) -> None:
    maps = np.zeros((1, 2, 2, channels), np.float32)
    held = [one for one in dense(3).figures if one.of == "labels"]
    assert {one.name for one in held if one.applies(maps, labels)} == figures


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.full((1, 2, 2), 3), "label 3: expected one of the 3 classes that the model outputs, or 255"),
        (np.array([1]), "labels are int64 (1,): expected maps (N, H, W) of classes for an output that is a map"),
        (np.zeros((1, 5)), "labels have shape (1, 5): expected as many values as the output has"),
        (np.full((1, 2, 2), 255), None),
        (np.zeros((1, 4, 3)), None),
    ],
)
def test_labels_are_maps_of_classes_or_as_many_values(labels: Any, told: str | None) -> None:
    assert dense(3).refuse_labels(np.zeros((1, 2, 2, 3), np.float32), labels) == told


def test_a_segmenter_is_asked_for_the_class_of_each_pixel() -> None:
    own, original = noisy(4, 6, 6)
    expected = 100 * np.mean(own.argmax(1) == original.argmax(1))
    assert value(segmentation(1), "agreement", own, original) == pytest.approx(expected)
    assert value(segmentation(1), "miou", own, original.argmax(1)) == value(dense(1), "miou", own, original.argmax(1))
    own[:] = np.nan
    assert value(segmentation(1), "agreement", own, original) == 0
