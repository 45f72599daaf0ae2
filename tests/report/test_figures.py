"""Figures with their meaning, from a report of any version, and what a row lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.figures import (
    headlines,
    held,
    judged,
    loss,
    losses,
    outputs,
    own_readings,
    plotted,
    readings,
    within,
)
from fimaq_deploy.report.schema import Figure, Meaning

Make = Callable[..., r.Report]


def with_own(report: r.Report, *values: float | None) -> r.Report:
    """The user's f1 of each row, and a second figure."""
    own = [[Figure(name="f1", value=value), Figure(name="f2", value=1.0)] for value in values]
    rows = [row.model_copy(update={"own": found}) for row, found in zip(report.rows, own, strict=True)]
    return report.model_copy(update={"rows": rows, "evaluate": "mine:f1"})


def test_a_report_from_before_has_logits_of_classes(small_report: Make) -> None:
    report = small_report()
    (output,) = outputs(report)
    assert (output.name, output.task) == ("logits", "classes")
    found = {one.meaning.name: one.value for one in readings(report, report.rows[2])}
    assert found == {"top1": 97.5, "top5": 100.0, "agreement": 99.5}


def test_a_neighbour_that_is_not_the_original_is_no_reading(small_report: Make) -> None:
    report = small_report()
    row = report.rows[2]
    elsewhere = r.Comparison(to="onnx-fp32", agreement=100.0, largest_difference=0.0)
    other = row.model_copy(update={"comparison": elsewhere})
    assert headlines(report, other) == []


def test_readings_have_the_meaning_that_the_report_gives_them(answering: Make) -> None:
    report = answering("embedding", cosine=0.99)
    (found,) = headlines(report, report.rows[1])
    assert (found.value, found.title, found.meaning.of) == (0.99, "cosine", "original")
    assert found.output == report.outputs[0]
    unknown = [Figure(output="output", name="of a later version", value=1.0)]
    row = report.rows[1].model_copy(update={"labelled": unknown})
    assert [one.meaning.name for one in readings(report, row)] == ["cosine"]


def test_the_users_own_figure_is_the_one_that_is_judged(small_report: Make) -> None:
    report = with_own(small_report(), 0.9, 0.9, 0.8, 0.8)
    found = own_readings(report.rows[2])
    assert [(one.title, one.meaning.headline, one.output) for one in found] == [("f1", True, None), ("f2", False, None)]
    assert judged(report, report.rows[2]) == found[0]
    lost = loss(report, report.rows[2])
    assert lost is not None
    assert (lost.original, lost.amount) == (0.9, pytest.approx(0.1))


def test_more_than_one_figure_may_be_held_to_a_threshold(answering: Make) -> None:
    figures = {"ap": 80.0, "ap50": 98.0, "mask_ap": 60.0}
    report = answering("detection", {**figures, "ap": 81.0}, **figures)
    row = report.rows[1]
    assert [one.meaning.name for one in held(report, row)] == ["ap", "mask_ap"]
    assert [one.meaning.name for one in held(report, row, "comparison")] == ["ap", "ap50", "mask_ap"]
    assert [(one.reading.title, one.amount, one.interval) for one in losses(report, row)] == [
        ("box AP", 1.0, None),
        ("mask AP", 0.0, None),
    ]
    own = with_own(report, 0.9, 0.8)
    assert [one.meaning.name for one in held(own, own.rows[1])] == ["f1"]


def test_where_the_user_measures_labels_do_not_stand_in(small_report: Make) -> None:
    report = small_report().model_copy(update={"evaluate": "mine:f1"})
    assert judged(report, report.rows[2]) is None


def test_a_loss_is_positive_where_the_row_is_worse(answering: Make) -> None:
    for kind, figure, original, value, amount in (
        ("classes", "top1", 80.0, 78.0, 2.0),
        ("classes", "top1", 80.0, 81.0, -1.0),
        ("regression", "mae", 2.0, 2.5, 0.5),
    ):
        report = answering(kind, {figure: original}, **{figure: value})
        found = loss(report, report.rows[1])
        assert found is not None and found.amount == amount


@pytest.mark.parametrize(("original", "value"), [(None, 0.9), (0.9, None)])
def test_a_loss_of_what_is_not_finite_is_not_known(
    small_report: Make, original: float | None, value: float | None
) -> None:
    report = with_own(small_report(), original, 1.0, value, 1.0)
    assert loss(report, report.rows[2]) is None


def test_a_chart_shows_what_is_judged_else_how_close_a_row_is(small_report: Make) -> None:
    labelled, bare = small_report(), small_report(labelled=False)
    found = [plotted(report, report.rows[2]) for report in (labelled, bare)]
    assert [one.meaning.name if one else None for one in found] == ["top1", "agreement"]
    lost = with_own(labelled, 0.9, 0.9, None, 0.9)
    assert plotted(lost, lost.rows[2]) is None


@pytest.mark.parametrize(
    ("higher", "value", "limit", "good"),
    [
        (True, 2.0, 1.0, True),
        (True, 1.0, 1.0, True),
        (True, 0.9, 1.0, False),
        (False, 0.9, 1.0, True),
        (False, 1.0, 1.0, True),
        (False, 1.1, 1.0, False),
        (True, None, -1.0, False),
        (False, None, 1e9, False),
    ],
)
def test_a_limit_is_within_itself_and_nothing_holds_what_is_not_finite(
    higher: bool, value: float | None, limit: float, good: bool
) -> None:
    meaning = Meaning(name="x", title="x", told="x {value}", of="user", higher_is_better=higher)
    assert within(meaning, value, limit) == good
