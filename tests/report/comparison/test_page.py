from __future__ import annotations

from pathlib import Path

import pytest

from fimaq_deploy import UserError
from fimaq_deploy import report as r
from fimaq_deploy.report.comparison.judge import Build, compare
from fimaq_deploy.report.comparison.page import _latency_title, comparison_page, write_comparison
from fimaq_deploy.report.comparison.records import Difference, Judgement, Thresholds
from fimaq_deploy.report.comparison.words import HEADER, cells
from fimaq_deploy.report.page.html import render
from fimaq_deploy.report.page.markdown import page_markdown
from fimaq_deploy.report.page.parts import Exhibit, Page

LIMITS = Thresholds(max_drop=1, max_slowdown=20, max_growth=5)


@pytest.fixture
def worse(full_report: r.Report) -> r.Report:
    """Four points of top-1 lost, a third slower and a tenth larger."""
    rows = [_worse(row) if row.deployed and not row.not_run else row for row in full_report.rows]
    return full_report.model_copy(update={"rows": rows, "seed": 9})


def _worse(row: r.Row) -> r.Row:
    assert row.accuracy and row.size_bytes
    top1 = row.accuracy.top1 - 4
    accuracy = row.accuracy.model_copy(update={"top1": top1, "interval": (top1 - 0.35, top1 + 0.35)})
    slower = {"speedup": 1.3, "speedup_interval": (1.28, 1.32)}
    latency = [latency.model_copy(update=slower) for latency in row.latency]
    return row.model_copy(update={"accuracy": accuracy, "latency": latency, "size_bytes": row.size_bytes * 11 // 10})


def judged(new: r.Report, old: r.Report, limits: Thresholds = LIMITS) -> Judgement:
    return compare(Build("new", new, None), [Build("old", old, None)], limits)


def exhibits(page: Page) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for section in page.sections for exhibit in section.exhibits}


def test_a_regression_is_the_first_thing_on_the_page(worse: r.Report, full_report: r.Report) -> None:
    judgement = judged(worse, full_report)
    page = comparison_page(judgement)
    assert (page.status, page.tone) == ("Regression", "bad")
    assert list(page.reasons) == judgement.regressions
    assert len(judgement.regressions) == 10, "two rows to ship, each with top-1, three batch sizes and a file"
    assert [card.tone for card in page.cards] == ["bad", "plain", *["bad"] * 4]


def test_a_card_holds_one_short_figure_and_says_what_it_is_a_change_of(worse: r.Report, full_report: r.Report) -> None:
    cards = {card.label: card for card in comparison_page(judged(worse, full_report)).cards}
    assert cards["Top-1, points"].value == "-4.00"
    assert cards["Size"].value == "+10.0 %"
    assert cards["Time, batch 1"].value == "+34.6 %"
    assert "full precision takes 1.30× as long, before 1.75×" in cards["Time, batch 1"].note
    assert all(len(card.value) < 9 for card in cards.values())


def test_a_loss_within_its_limit_is_not_called_worse(full_report: r.Report) -> None:
    rows = [row.model_copy(update={"size_bytes": (row.size_bytes or 0) * 1001 // 1000}) for row in full_report.rows]
    new = full_report.model_copy(update={"rows": rows})
    page = comparison_page(judged(new, full_report, Thresholds(max_growth=1)))
    (card,) = (card for card in page.cards if card.label == "Size")
    assert (card.value, card.tone, card.note) == ("+0.1 %", "plain", "within the limit")
    (card,) = (c for c in comparison_page(judged(new, full_report, Thresholds())).cards if c.label == "Size")
    assert (card.tone, card.note) == ("bad", "worse")


def test_every_figure_is_in_the_table_and_regressions_are_marked(worse: r.Report, full_report: r.Report) -> None:
    judgement = judged(worse, full_report)
    table = exhibits(comparison_page(judgement))["figures-1"]
    differences = judgement.comparisons[0].differences
    assert table.header == HEADER
    assert table.rows == tuple(cells(difference) for difference in differences)
    assert [table.rows[number][-1] for number in table.marked] == ["regression"] * 10


def test_titles_say_what_is_seen(worse: r.Report, full_report: r.Report) -> None:
    found = exhibits(comparison_page(judged(worse, full_report)))
    assert found["answers-1"].title == "ONNX Runtime CPU loses 4.00 points of top-1"
    assert found["latency-1"].title == "ONNX Runtime CPU takes 35 % longer at batch 1, relative to full precision"
    assert found["changes-1"].rows == (("seed", "9", "3"),)
    same = exhibits(comparison_page(judged(full_report, full_report)))
    assert same["answers-1"].title == "No row loses more top-1 than chance explains"
    assert same["latency-1"].title == "No row is slower than its own spread explains"
    assert same["changes-1"].title == "Recipe, seed, machine and packages are the same"


@pytest.mark.parametrize(
    ("limits", "status", "tone"),
    [(LIMITS, "No regression", "good"), (Thresholds(), "Not held to any threshold", "plain")],
)
def test_a_pass_is_told(full_report: r.Report, limits: Thresholds, status: str, tone: str) -> None:
    page = comparison_page(judged(full_report, full_report, limits))
    assert (page.status, page.tone, list(page.reasons)) == (status, tone, [])


def test_what_could_not_be_judged_is_told(full_report: r.Report) -> None:
    other = full_report.environment.model_copy(update={"cpu": "another"})
    page = comparison_page(judged(full_report.model_copy(update={"environment": other}), full_report))
    assert (page.status, page.tone) == ("Not everything could be judged", "bad")
    assert exhibits(page)["latency-1"].title == "Time on other hardware, not judged"
    assert "other hardware" in page.reasons[0]


def test_each_baseline_has_a_section(full_report: r.Report) -> None:
    old = [Build(name, full_report, None) for name in ("one", "two")]
    page = comparison_page(compare(Build("new", full_report, None), old, LIMITS))
    assert [section.title for section in page.sections] == ["Against one", "Against two"]
    ids = [exhibit.id for section in page.sections for exhibit in section.exhibits]
    assert len(ids) == len(set(ids))


def test_what_was_asked_for_is_written(worse: r.Report, full_report: r.Report, tmp_path: Path) -> None:
    judgement = judged(worse, full_report)
    paths = {name: tmp_path / "made" / f"compare.{name}" for name in ("html", "markdown", "json", "junit")}
    write_comparison(judgement, **paths)
    page = comparison_page(judgement)
    assert paths["html"].read_text(encoding="utf-8") == render(page, "compare.html.j2")
    assert Judgement.model_validate_json(paths["json"].read_text(encoding="utf-8")) == judgement
    assert paths["junit"].read_text(encoding="utf-8").startswith("<?xml")
    text = paths["markdown"].read_text(encoding="utf-8")
    assert all(reason in text for reason in judgement.regressions)
    assert "Further left is better" not in text, "what is only drawn has no place in text"
    assert "Further left is better" in page_markdown(page)


def test_nothing_is_written_unasked(full_report: r.Report, tmp_path: Path) -> None:
    write_comparison(judged(full_report, full_report))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_line(full_report: r.Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_comparison(judged(full_report, full_report), html=tmp_path / "file" / "page.html")


def test_a_title_names_a_regression_before_what_chance_may_explain() -> None:
    """Found on a page where both had lost as much."""
    found = Difference(
        row="x",
        title="x",
        figure="latency",
        of="latency",
        measure="time",
        new=1,
        baseline=2,
        loss=30,
        verdict="doubtful",
    )
    worse = found.model_copy(update={"loss": 25, "verdict": "regression", "batch_size": 8})
    assert _latency_title([found, worse]).startswith("x takes 25 % longer at batch 8")
