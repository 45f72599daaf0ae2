from __future__ import annotations

from math import inf, nan

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.report.comparison.records import Difference, Thresholds, verdict_of


@pytest.mark.parametrize("name", ["max_drop", "max_slowdown", "max_growth", "min_agreement", "min_cosine"])
@pytest.mark.parametrize("value", [nan, inf, -inf, -5.0])
def test_a_threshold_that_never_fires_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}") as error:
        Thresholds(**{name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("min_agreement", 101.0), ("min_cosine", 1.1)])
def test_a_threshold_that_nothing_meets_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError):
        Thresholds(**{name: value})


def test_thresholds_are_known_by_their_options() -> None:
    assert Thresholds(max_drop=0, min_cosine=-1).asked == {"--max-drop": 0, "--min-cosine": -1}


@pytest.mark.parametrize(
    ("loss", "limit", "real", "verdict"),
    [
        (2, 1, True, "regression"),
        (2, 1, False, "doubtful"),
        (1, 1, True, "allowed"),
        (1, None, True, "worse"),
        (1, 1, False, "same"),
        (-1, None, True, "better"),
        (-1, 0, True, "better"),
    ],
)
def test_verdicts(loss: float, limit: float | None, real: bool, verdict: str) -> None:
    assert verdict_of(loss, limit, real) == verdict


def test_a_difference_of_0_1_0_reads_back() -> None:
    old = {"row": "cpu", "title": "CPU", "new": 1.0, "baseline": 2.0, "loss": 1.0, "verdict": "worse"}
    assert Difference.model_validate({**old, "figure": "top1"}).of == "labels"
    assert Difference.model_validate({**old, "figure": "latency", "batch_size": 8}).measure == "time, batch 8"
