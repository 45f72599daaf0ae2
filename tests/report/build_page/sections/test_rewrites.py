"""Which rewrites were measured, and what each was worth."""

from __future__ import annotations

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.rewrites import rewrites
from fimaq_deploy.report.page.parts import Exhibit
from fimaq_deploy.report.schema import RewriteChoice

VALUES = {"setting": "rewrites.values=true", "loss": 0.5, "gain": 0.25, "noise": 0.125, "taken": True}
HEADS = {"setting": "rewrites.heads=true", "loss": 0.75, "gain": 0.0, "noise": 0.125, "taken": False}


def shown(report: r.Report, *trials: dict[str, object]) -> tuple[Exhibit, ...]:
    found = RewriteChoice.model_validate({"images": 32, "loss": 0.75, "trials": trials})
    return rewrites(report.model_copy(update={"rewrites": found})).exhibits


def test_each_trial_is_a_row_and_the_title_says_what_was_taken(full_report: r.Report) -> None:
    (table,) = shown(full_report, HEADS, VALUES)
    assert table.title == "Taken: rewrites.values=true; the loss before learning is 0.5, from 0.75"
    assert table.rows == (
        ("rewrites.heads=true", "–", "0.75", "0", "0.125", "no"),
        ("rewrites.values=true", "–", "0.5", "0.25", "0.125", "yes"),
    )
    assert "mean over 32 images" in table.note


def test_where_nothing_helped_it_says_so(full_report: r.Report) -> None:
    assert shown(full_report, {**HEADS, "beside": ["rewrites.values=true"]})[0].rows[0][1] == "rewrites.values=true"
    assert shown(full_report, HEADS)[0].title == "No switch was worth taking"


def test_a_build_that_measured_nothing_has_no_such_section(full_report: r.Report) -> None:
    assert rewrites(full_report.model_copy(update={"rewrites": None})).exhibits == ()
