"""A judgement in the words that every output uses."""

from __future__ import annotations

from typing import Any

import pytest

from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Thresholds
from fimaq_deploy.report.comparison.words import (
    HEADER,
    allowance_text,
    cells,
    certainty_text,
    change_text,
    figure_text,
    sentence,
    summary,
    verdict_text,
)

TOP1 = {"figure": "top1", "of": "labels", "measure": "top-1", "unit": "%", "new": 77.0, "baseline": 80.0, "loss": 3.0}
TIME = {"figure": "latency", "of": "latency", "measure": "time, batch 1", "new": 1.0, "baseline": 2.0, "loss": 100.0}
SIZE = {"figure": "size", "of": "size", "measure": "size", "new": 1_060_000, "baseline": 1_000_000, "loss": 6.0}
MAE = {"figure": "mae", "of": "labels", "measure": "MAE", "new": 2.5, "baseline": 2.0, "loss": 0.5}
MAE = {**MAE, "higher_is_better": False}


def difference(kind: dict[str, Any], **more: Any) -> Difference:
    return Difference.model_validate({"row": "cpu", "title": "CPU", "verdict": "worse", **kind, **more})


@pytest.mark.parametrize(
    ("kind", "more", "text"),
    [
        (TOP1, {}, "-3.00 points"),
        (TOP1, {"loss": 0.0}, "+0.00 points"),
        (TOP1, {"interval": (1.0, 5.0), "p_value": 0.012}, "-3.00 points (-5.0 to -1.0, p = 0.012)"),
        (TIME, {"interval": (90.0, 110.0)}, "+100.0 % (+90.0 to +110.0)"),
        (SIZE, {}, "+6.0 %, +60,000 bytes"),
        (MAE, {}, "+0.5000"),
        (MAE, {"interval": (0.25, 0.75)}, "+0.5000 (+0.25 to +0.75)"),
    ],
)
def test_a_change_is_upwards_with_a_plus(kind: dict[str, Any], more: dict[str, Any], text: str) -> None:
    assert change_text(difference(kind, **more)) == text


def test_what_is_exact_has_no_certainty() -> None:
    assert certainty_text(difference(SIZE)) == ""


@pytest.mark.parametrize(
    ("kind", "more", "text"),
    [
        (TOP1, {}, "top-1"),
        (TOP1, {"output": "boxes"}, "boxes: top-1"),
        (TOP1, {"of": "original", "measure": "agree"}, "agree with the original"),
    ],
)
def test_a_figure_says_of_what_it_is(kind: dict[str, Any], more: dict[str, Any], text: str) -> None:
    assert figure_text(difference(kind, **more)) == text


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (TOP1, ("CPU", "top-1", "77.00 %", "80.00 %", "-3.00 points", "worse")),
        (TIME, ("CPU", "time, batch 1", "1.00×", "2.00×", "+100.0 %", "worse")),
        (
            {**TIME, "new_ms": 8.0, "baseline_ms": 4.0},
            ("CPU", "time, batch 1", "8.00 ms, 1.00×", "4.00 ms, 2.00×", "+100.0 %", "worse"),
        ),
        (SIZE, ("CPU", "size", "1.1 MB", "1.0 MB", "+6.0 %, +60,000 bytes", "worse")),
    ],
)
def test_a_difference_is_a_line_of_the_table(kind: dict[str, Any], shown: tuple[str, ...]) -> None:
    assert cells(difference(kind)) == shown
    assert len(shown) == len(HEADER)


@pytest.mark.parametrize(
    ("verdict", "loss", "text"),
    [
        ("same", 0.0, "equal"),
        ("same", 0.2, "alike"),
        ("allowed", 1.0, "within the limit"),
        ("regression", 9.0, "regression"),
        ("not judged", 9.0, "not judged"),
    ],
)
def test_verdicts_in_a_word_or_two(verdict: str, loss: float, text: str) -> None:
    assert verdict_text(difference(TOP1, verdict=verdict, loss=loss)) == text


@pytest.mark.parametrize(
    ("kind", "limit", "text"),
    [
        (TOP1, 1.0, "1 point"),
        (TOP1, 0.5, "0.5 points"),
        (TIME, 20.0, "20 %"),
        (SIZE, 0.0, "0 %"),
        (MAE, 0.25, "0.25"),
    ],
)
def test_a_limit_has_its_unit(kind: dict[str, Any], limit: float, text: str) -> None:
    assert allowance_text(difference(kind, limit=limit)) == text


def test_a_loss_beyond_its_threshold_is_a_sentence() -> None:
    told = sentence(difference(TIME, limit=20.0, verdict="doubtful"), "old")
    assert told == (
        "CPU: time, batch 1 +100.0 %, relative to full precision, against old; a loss of 20 % is allowed; "
        "it may be chance"
    )
    told = sentence(difference(TOP1, limit=1.0, verdict="regression"), "old")
    assert told == "CPU: top-1 -3.00 points, against old; a loss of 1 point is allowed"


def judgement(broken: int = 0, regressions: int = 0, obstacles: int = 0, **limits: float) -> Judgement:
    none: dict[str, Any] = {name: [] for name in ("differences", "doubts", "notes", "changes")}
    found = {"regressions": ["a loss"] * regressions, "obstacles": ["a reason"] * obstacles}
    against = Comparison(baseline="old", agreement={}, **none, **found)
    fields = {"new": "new", "created": "today", "model": "vit", "broken": ["far"] * broken}
    return Judgement.model_validate({**fields, "thresholds": Thresholds(**limits), "comparisons": [against]})


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"max_drop": 1}, "no regression"),
        ({}, "shown without a threshold, so nothing is judged,"),
        ({"obstacles": 1, "max_drop": 1}, "no regression found, but not every threshold could be judged,"),
        ({"obstacles": 1, "regressions": 1}, "1 regression"),
        ({"regressions": 2}, "2 regressions"),
        ({"broken": 1}, "new is not close enough to its own original, and no regression"),
        ({"broken": 1, "regressions": 1}, "new is not close enough to its own original, and 1 regression"),
    ],
)
def test_the_outcome_is_a_sentence(found: dict[str, Any], text: str) -> None:
    assert summary(judgement(**found)) == f"vit: {text} against old."
