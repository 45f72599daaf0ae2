"""What a bank tells of embeddings and of patches: all is kept by the original itself, and ruined answers are not."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import Array, value
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from fimaq_deploy.measure.tasks.banked import dense_with_bank, embedding_with_bank
from fimaq_deploy.measure.tasks.dense import dense
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.probes import Bank, Fit
from fimaq_deploy.measure.tasks.task import Task

CLASSES = 4


def drawn(count: int, seed: int, size: int = 16, spread: float = 0.4) -> tuple[Array, Array]:
    """Vectors around a centre for each class, all far from the origin, as features of an encoder are."""
    centres = 3 + np.random.default_rng(7).normal(size=(CLASSES, size))
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    return (centres[labels] + spread * random.normal(size=(count, size))).astype(np.float32), labels


def of_embeddings(own: Bank | None = None, vectors: Array | None = None) -> Task:
    bank = Bank(*drawn(90, seed=0))
    return embedding_with_bank(EMBEDDING, bank, own or bank)


def grid(count: int, seed: int) -> tuple[Array, Array]:
    """(N, 6, 6, 16) patches and maps of their classes (N, 12, 12)."""
    vectors, labels = drawn(count * 36, seed)
    return vectors.reshape(count, 6, 6, -1), labels.reshape(count, 6, 6).repeat(2, 1).repeat(2, 2)


def of_patches() -> Task:
    vectors, labels = grid(12, seed=0)
    fit = Fit()
    fit.add(vectors.reshape(-1, 16), np.eye(CLASSES)[labels[:, ::2, ::2].reshape(-1)])
    return dense_with_bank(dense(3), fit.solved())


def test_votes_are_those_of_scikit_learn() -> None:
    bank, (asked, _) = drawn(90, seed=0, spread=3), drawn(60, seed=1, spread=3)
    model = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    )
    assert np.array_equal(Bank(*bank).voted(asked), model.fit(*bank).predict(asked))


def test_a_small_bank_votes_with_all_it_has() -> None:
    bank = Bank(np.eye(3, dtype=np.float32), np.array([5, 5, 9]))
    assert bank.voted(np.float32([[0, 0, 1], [1, 0, 0], [np.nan, 0, 0]])).tolist() == [9, 5, -1]


@settings(max_examples=3, deadline=None)
@given(st.integers(1, 1000))
def test_the_original_keeps_everything_and_others_do_not(seed: int) -> None:
    for task, (own, labels) in ((of_embeddings(), drawn(60, seed)), (of_patches(), grid(60, seed))):
        assert value(task, "bank_agreement", own, own) == 100
        for figure in (one for one in task.figures if one.of == "labels"):
            assert value(task, figure.name, own, labels) > 85, figure.name
        for ruined in (np.roll(own, 1, axis=0), np.broadcast_to(own.mean(0), own.shape)):
            assert value(task, "bank_agreement", ruined, own) < 60
            assert value(task, "explained", ruined, own) < 25  # the floor
            for figure in (one for one in task.figures if one.of == "labels"):
                assert value(task, figure.name, ruined, labels) < 60, figure.name


def test_the_probe_and_a_kept_bank_are_the_originals() -> None:
    """A model that turns every embedding keeps its own neighbours, and no head or gallery of the original."""
    vectors, labels = drawn(90, seed=0)
    asked, truth = drawn(60, seed=1)
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))[0].astype(np.float32)
    task = of_embeddings(Bank(vectors @ turned, labels))
    figures = {name: value(task, name, asked @ turned, truth) for name in ("bank_knn", "kept_knn", "bank_probe")}
    assert figures["bank_knn"] > 95
    assert max(figures["kept_knn"], figures["bank_probe"]) < 60
    assert value(task, "bank_agreement", asked @ turned, asked) > 95


def test_a_threshold_is_about_what_the_bank_says() -> None:
    assert of_embeddings().figure("bank_probe").drop == "build"
    for task in (of_embeddings(), of_patches()):
        assert [one.headline for one in task.figures if one.of == "labels"].count(True) == 1
        assert [one.name for one in task.figures if one.gate == "agreement"] == ["bank_agreement"]
        labelled = [one.name for one in task.figures if one.of == "labels"]
        assert all(name.startswith(("bank_", "kept_")) for name in labelled)


def test_what_is_not_finite_is_wrong() -> None:
    own, labels = drawn(60, seed=1)
    broken = own.copy()
    broken[:30, 2] = np.nan
    task = of_embeddings()
    for name in ("bank_knn", "bank_probe", "kept_knn"):
        assert value(task, name, broken, labels) == pytest.approx(value(task, name, own[30:], labels[30:]) / 2)


def test_maps_of_other_classes_are_refused() -> None:
    task = of_patches()
    maps = np.zeros((2, 12, 12), np.int64)
    assert task.refuse_labels(np.zeros((2, 6, 6, 16)), maps) is None
    told = task.refuse_labels(np.zeros((2, 6, 6, 16)), maps + CLASSES)
    assert told == "label 4: expected one of the 4 classes that the bank shows, or 255"
    assert "expected maps (N, H, W)" in (task.refuse_labels(np.zeros((2, 6, 6, 16)), np.zeros(2, np.int64)) or "")
