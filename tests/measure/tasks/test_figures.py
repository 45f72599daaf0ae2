"""What holds for the figures of every kind of output."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import noisy, value

from fimaq_deploy.measure.tasks.choices import CHOICES
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.measure.tasks.dense import dense
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.multilabel import MULTILABEL
from fimaq_deploy.measure.tasks.regression import REGRESSION

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
