"""Votes of neighbours and a linear probe, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.probes import probed, unit, voted


def embeddings(spread: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    labels = random.integers(3, 7, 120)
    centres = random.normal(size=(10, 16))
    return (centres[labels] + spread * random.normal(size=(120, 16))).astype(np.float32), labels


def test_votes_are_those_of_scikit_learn() -> None:
    vectors, labels = embeddings(2.0)
    directions = unit(vectors)
    expected = []
    for number in range(len(labels)):
        others = np.arange(len(labels)) != number
        model = KNeighborsClassifier(
            20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
        )
        expected.append(model.fit(directions[others], labels[others]).predict(directions[number : number + 1])[0])
    assert voted(vectors, labels, 20).tolist() == expected


def test_a_probe_is_a_ridge_on_the_other_half() -> None:
    vectors, labels = embeddings(2.0)
    even = np.arange(len(labels)) % 2 == 0
    wanted = (labels[:, None] == np.unique(labels)).astype(float)
    away = vectors[~even] - vectors[~even].mean(0)
    model = Ridge(alpha=1e-3 * np.square(away.astype(np.float64)).sum(0).mean()).fit(vectors[~even], wanted[~even])
    expected = np.unique(labels)[model.predict(vectors[even]).argmax(1)]
    assert np.array_equal(probed(vectors, labels)[even], expected)


@pytest.mark.parametrize("name", ["knn20", "probe"])
def test_figures_tell_classes_apart(name: str) -> None:
    figure = EMBEDDING.figure(name)
    for spread, least, most in ((0.1, 1.0, 1.0), (30.0, 0.1, 0.5)):
        vectors, labels = embeddings(spread)
        right = figure.state(figure.parts(vectors, labels))
        assert least <= right.mean() <= most


@pytest.mark.parametrize("name", ["knn20", "probe"])
def test_what_is_not_finite_is_wrong(name: str) -> None:
    vectors, labels = embeddings(0.1)
    vectors[5, 3] = np.nan
    figure = EMBEDDING.figure(name)
    right = figure.state(figure.parts(vectors, labels))
    assert not right[5]
    assert right.sum() > 110


def test_few_images_say_nothing() -> None:
    assert not EMBEDDING.figure("probe").says_something(40)
    assert EMBEDDING.figure("knn20").says_something(41)
