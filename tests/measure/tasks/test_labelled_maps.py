"""Overlap of maps beside scikit-learn's Jaccard index."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from fimaq_deploy.measure.tasks.labelled_maps import mean_iou, overlaps, refuse_unfitting


def test_mean_iou_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(5, 6, 6, 4)).astype(np.float32), random.integers(0, 4, (5, 6, 6))
    labels[:, 0] = 255  # nobody knows
    found = mean_iou(overlaps(scores, labels), np.ones(5))
    known = labels != 255
    assert found == pytest.approx(jaccard_score(labels[known], scores.argmax(-1)[known], average="macro"))


def test_scores_are_enlarged_before_they_are_compared() -> None:
    scores = np.eye(2, dtype=np.float32)[np.array([[0, 1], [0, 1]])][None]
    labels = np.array([[0, 0, 1, 1]] * 4)[None]
    assert mean_iou(overlaps(scores, labels), np.ones(1)) == 1


def test_labels_that_do_not_fit() -> None:
    maps = np.array([[[0, 255], [1, 2]]])
    assert refuse_unfitting(maps, 3, "model outputs") is None
    told = refuse_unfitting(maps, 2, "model outputs")
    assert told == "label 2: expected one of the 2 classes that the model outputs, or 255"
    assert refuse_unfitting(maps.astype(float), 3, "model outputs") is not None
