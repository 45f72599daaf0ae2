"""A way to run a model unless more is said of it, and what later builds are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fixtures.evaluations import LABELS, ORIGINAL, OWN, passed

from fimaq_deploy.measure.tasks.regression import REGRESSION
from fimaq_deploy.pipeline.rows import Candidate, to_predictions
from fimaq_deploy.report.predictions import Key


@pytest.mark.parametrize(("labels", "kept"), [(None, None), (LABELS, LABELS.tolist())], ids=["none", "labelled"])
def test_predictions_keep_what_builds_are_judged_by(labels: Any, kept: Any) -> None:
    found = to_predictions("abc", "def", {"engine": passed(OWN, ORIGINAL, labels)})
    assert (found.images, found.truth) == ("abc", "def")
    assert found.rows["engine"].dtype == np.int32
    assert found.rows["engine"].tolist() == OWN.argmax(1).tolist()
    assert (found.labels if found.labels is None else found.labels.tolist()) == kept
    judged = {"agreement", "cosine"} | ({"top1"} if labels is not None else set())
    assert set(found.means) == {Key("engine", "logits", name) for name in judged}
    assert found.means[Key("engine", "logits", "agreement")].tolist() == [0.0] * 3 + [100.0] * 9
    assert found.resamples == {}


def test_a_figure_that_is_no_mean_keeps_its_resamples() -> None:
    found = to_predictions("abc", "def", {"engine": passed(OWN, ORIGINAL, tasks={"angle": REGRESSION})})
    assert (found.rows, found.means) == ({}, {})
    assert set(found.resamples) == {Key("engine", "angle", "concordance")}


def test_what_has_no_prediction_is_kept_as_none() -> None:
    own = OWN.copy()
    own[4] = np.nan
    assert to_predictions("abc", "def", {"engine": passed(own, ORIGINAL)}).rows["engine"].tolist()[4] == -1


def test_a_candidate_is_neither_shipped_nor_the_original_unless_it_says_so() -> None:
    plain = Candidate("engine", "Engine", None)
    assert (plain.compared_to, plain.file, plain.deployed, plain.not_run, plain.original) == (
        None,
        None,
        False,
        None,
        False,
    )
