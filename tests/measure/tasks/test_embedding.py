"""Figures of embeddings against scikit-learn's neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import IMAGES, Array, noisy, value
from sklearn.neighbors import NearestNeighbors

from fimaq_deploy.measure.tasks.embedding import EMBEDDING, nearest


def test_neighbours_are_those_of_scikit_learn() -> None:
    own, original = noisy(16)

    def neighbours(vectors: Array, count: int) -> Array:
        found = NearestNeighbors(n_neighbors=count + 1, metric="cosine").fit(vectors)
        return found.kneighbors(vectors, return_distance=False)[:, 1:]

    for count in (1, 10):
        pairs = zip(neighbours(own, count), neighbours(original, count), strict=True)
        expected = np.mean([len(set(a) & set(b)) / count for a, b in pairs])
        assert value(EMBEDDING, f"recall{count}", own, original) == pytest.approx(100 * expected)


def test_neighbours_need_more_than_twice_as_many_images() -> None:
    own, original = noisy(16)
    assert np.isnan(value(EMBEDDING, "recall10", own[:20], original[:20]))
    assert np.isfinite(value(EMBEDDING, "recall10", own[:21], original[:21]))


def test_the_class_of_the_nearest_image() -> None:
    labels = np.arange(IMAGES) % 3
    own = np.eye(3, dtype=np.float32)[labels] + 0.1 * noisy(3)[1]
    assert value(EMBEDDING, "knn", own, labels) == 100
    assert value(EMBEDDING, "knn", noisy(3)[1], labels) < 70


def test_the_nearest_is_by_angle_and_never_the_image_itself() -> None:
    vectors = np.float32([[1, 0], [10, 1], [0, 1], [0, 0]])
    assert nearest(vectors, 1)[:3, 0].tolist() == [1, 0, 1]
    assert all(image not in row for image, row in enumerate(nearest(vectors, 3)))


def test_many_images_are_searched_in_pieces_as_at_once() -> None:
    vectors = np.random.default_rng(0).normal(size=(1100, 4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    assert np.array_equal(nearest(vectors, 1)[:, 0], cosine.argmax(1))


def test_an_embedding_that_is_not_finite_keeps_no_neighbour() -> None:
    own, original = noisy(16, noise=0)
    own[7] = np.nan
    figure = EMBEDDING.figure("recall1")
    kept = figure.state(figure.parts(own, original))
    assert kept[7] == 0
    assert kept.mean() > 0.5


def test_labels_are_one_class_an_image() -> None:
    own = np.zeros((2, 3), np.float32)
    assert EMBEDDING.refuse_labels(own, np.array([0, 99])) is None
    told = EMBEDDING.refuse_labels(own, np.array([0.5, 1]))
    assert told == "labels are float64 (2,): expected one class an image, as integers"
