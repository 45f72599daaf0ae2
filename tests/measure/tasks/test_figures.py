"""Every figure against a slow, obvious reference or scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax
from sklearn.metrics import average_precision_score, cohen_kappa_score, jaccard_score
from sklearn.neighbors import NearestNeighbors

from fimaq_deploy.measure.resampling import measured
from fimaq_deploy.measure.tasks import Task
from fimaq_deploy.measure.tasks.choices import CHOICES
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.measure.tasks.dense import channel_axis, dense
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.multilabel import MULTILABEL
from fimaq_deploy.measure.tasks.regression import REGRESSION

Array = NDArray[Any]
IMAGES = 60


def noisy(*shape: int, noise: float = 0.5, seed: int = 0) -> tuple[Array, Array]:
    """Outputs and those of an original (IMAGES, ...)."""
    random = np.random.default_rng(seed)
    original = random.normal(size=(IMAGES, *shape)).astype(np.float32)
    return original + noise * random.normal(size=original.shape).astype(np.float32), original


def value(task: Task, name: str, own: Array, reference: Array, batch: int = 25) -> float:
    """A figure from batches, as it is measured."""
    figure = task.figure(name)
    pairs = [(own[start : start + batch], reference[start : start + batch]) for start in range(0, len(own), batch)]
    arranged = [(task.arrange(a), task.arrange(b) if figure.of == "original" else b) for a, b in pairs]
    return measured("x", figure, np.concatenate([figure.parts(*pair) for pair in arranged])).value


ALL = {"classes": CLASSES, "embedding": EMBEDDING, "multilabel": MULTILABEL, "regression": REGRESSION}
SHAPES = {
    "classes": (7,),
    "embedding": (16,),
    "multilabel": (7,),
    "regression": (2,),
    "dense": (9, 16),
    "choices": (3,),
}


@pytest.mark.parametrize("kind", [*ALL, "dense", "choices"])
def test_the_original_against_itself_is_perfect_and_passes_every_floor(kind: str) -> None:
    task = {**ALL, "dense": dense(2), "choices": CHOICES}[kind]
    _, original = noisy(*SHAPES[kind])
    original = original if kind != "choices" else original.astype(np.int64)
    for figure in (one for one in task.figures if one.of == "original"):
        best = (100.0 if figure.unit == "%" else 1.0) if figure.higher_is_better else 0.0
        assert value(task, figure.name, original, original) == pytest.approx(best, abs=1e-6), figure.name


@pytest.mark.parametrize("kind", [*ALL, "dense", "choices"])
def test_a_model_of_other_answers_is_beyond_a_floor(kind: str) -> None:
    task = {**ALL, "dense": dense(2), "choices": CHOICES}[kind]
    (own, _), (_, original) = noisy(*SHAPES[kind], seed=1), noisy(*SHAPES[kind], seed=2)
    if kind == "choices":
        own, original = (9 * own).astype(np.int64), (9 * original).astype(np.int64)
    floors = [figure for figure in task.figures if figure.floor is not None]
    assert any((value(task, f.name, own, original) < (f.floor or 0)) == f.higher_is_better for f in floors)


@pytest.mark.parametrize("kind", [*ALL, "dense"])
def test_one_number_that_is_not_finite_is_never_a_good_figure(kind: str) -> None:
    task = {**ALL, "dense": dense(2)}[kind]
    own, original = noisy(*SHAPES[kind], noise=0)
    own[3] = np.nan
    for figure in (one for one in task.figures if one.gate):
        found = value(task, figure.name, own, original)
        assert np.isnan(found) or found < 100, figure.name


def test_every_kind_has_a_headline_a_gate_and_a_floor() -> None:
    for task in (*ALL.values(), dense(2), CHOICES):
        against = [figure for figure in task.figures if figure.of == "original"]
        assert sum(figure.headline for figure in against) == 1
        assert any(figure.gate for figure in against)
        assert any(figure.floor is not None for figure in against)


# Classes


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


# Embeddings


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


def test_cosine_and_relative_error() -> None:
    own, original = np.float32([[3, 4], [0, 0], [0, 0]]), np.float32([[4, 3], [0, 0], [1, 0]])
    assert value(EMBEDDING, "cosine", own, original) == pytest.approx((24 / 25 + 1 + 0) / 3)
    assert value(EMBEDDING, "relative_error", own, original) == pytest.approx(100 * (np.sqrt(2) / 5 + 0 + 1) / 3)


# Several labels


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


# Regression


def test_correlation_error_and_concordance() -> None:
    own, original = noisy(2)
    expected = np.mean([np.corrcoef(own[:, c], original[:, c])[0, 1] for c in (0, 1)])
    assert value(REGRESSION, "correlation", own, original) == pytest.approx(expected)
    assert value(REGRESSION, "mae", own, original) == pytest.approx(np.abs(own - original).mean(), rel=1e-5)
    error = np.abs(own - original).sum(0) / np.abs(original).sum(0)
    assert value(REGRESSION, "relative_error", own, original) == pytest.approx(100 * error.mean())


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 5.0), (3.0, 0.0)])
def test_concordance_sees_what_correlation_does_not(factor: float, offset: float) -> None:
    _, original = noisy(1)
    own = factor * original + offset
    assert value(REGRESSION, "correlation", own, original) == pytest.approx(1)
    assert value(REGRESSION, "concordance", own, original) < 0.8


def test_one_column_may_have_no_axis_of_its_own() -> None:
    own, original = noisy()
    assert value(REGRESSION, "mae", own, original[:, None]) == value(REGRESSION, "mae", own[:, None], original)


# Dense


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
