"""What quantizing each part costs, the costliest first."""

from __future__ import annotations

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.sensitivity import sensitivity
from fimaq_deploy.report.page.parts import Exhibit


def part(name: str, alone: float, kind: str = "block") -> r.Sensitivity:
    return r.Sensitivity.model_validate({"name": name, "kind": kind, "alone": alone, "spared": alone / 2})


def shown(report: r.Report, *found: r.Sensitivity) -> tuple[Exhibit, ...]:
    return sensitivity(report.model_copy(update={"sensitivity": list(found)})).exhibits


def test_the_costliest_part_is_the_title_with_its_share(full_report: r.Report) -> None:
    (exhibit,) = shown(full_report, part("a", 1.0), part("b", 6.0), part("c", 1.0))
    assert exhibit.title == "b costs the most: 75 % of the sum over all blocks"
    assert exhibit.note == "Every block."
    assert exhibit.rows == (("b", "6", "3"), ("a", "1", "0.5"), ("c", "1", "0.5"))


def test_blocks_and_layers_are_told_apart(full_report: r.Report) -> None:
    found = shown(full_report, part("a.fc1", 2.0, "layer"), part("a", 1.0))
    assert [(exhibit.id, exhibit.rows[0][0]) for exhibit in found] == [
        ("sensitivity-block", "a"),
        ("sensitivity-layer", "a.fc1"),
    ]


def test_a_chart_shows_twenty_and_the_table_all(full_report: r.Report) -> None:
    (exhibit,) = shown(full_report, *(part(f"blocks.{n}", float(n)) for n in range(23)))
    assert exhibit.note == "The 20 most sensitive of 23 blocks."
    assert len(exhibit.rows) == 23
    assert exhibit.rows[0][0] == "blocks.22"


def test_losses_that_sum_to_nothing_have_no_share(full_report: r.Report) -> None:
    (exhibit,) = shown(full_report, part("a", 0.0), part("b", -1.0))
    assert exhibit.title == "a costs the most"


def test_nothing_measured_is_nothing_shown(full_report: r.Report) -> None:
    assert shown(full_report) == ()
