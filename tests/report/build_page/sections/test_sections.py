"""The list of sections: each is one function, and stands where it has something to show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page import sections
from fimaq_deploy.report.page.parts import Exhibit, Section

Make = Callable[..., r.Report]
EVERY_SECTION = (
    "results",
    "reconstruction",
    "grids",
    "sensitivity",
    "latency",
    "layer-plan",
    "parity",
    "targets",
    "environment",
)
EVERY_CHART = {
    "tradeoff",
    "block-errors",
    "convergence",
    "grid-use",
    "clipping",
    "sensitivity-block",
    "sensitivity-layer",
    "latency-by-batch",
    "audit-tensorrt-rtx",
    "stages",
    "steps",
}


def exhibits(report: r.Report) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for section in sections.sections(report) for exhibit in section.exhibits}


def test_a_full_report_has_every_section_and_every_chart(full_report: r.Report) -> None:
    assert tuple(section.id for section in sections.sections(full_report)) == EVERY_SECTION
    assert {name for name, exhibit in exhibits(full_report).items() if exhibit.paint} == EVERY_CHART


def test_every_chart_has_its_figures_beside_it(full_report: r.Report) -> None:
    """A chart's own text alternative; what is clipped stands in the table of the grids."""
    found = exhibits(full_report)
    assert {name for name in EVERY_CHART if not found[name].rows} == {"clipping"}
    assert all(exhibit.title for exhibit in found.values() if exhibit.paint)


def test_a_section_is_one_function_in_a_list(small_report: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(report: r.Report) -> Section:
        return Section("toy", "Toy", exhibits=(Exhibit("seed", f"The seed is {report.seed}"),))

    monkeypatch.setattr(sections, "SECTIONS", [toy, *sections.SECTIONS])
    assert [section.id for section in sections.sections(small_report())][:2] == ["toy", "results"]
    assert "## Toy" in r.to_markdown(small_report())
    assert "The seed is 0" in r.to_html(small_report())
