"""The findings of one build, section by section, for the page and for Markdown alike.

A section is a file with a function from the report to it. It stands only where there is something to show; each
finding's title is a sentence made from the figures.
"""

from __future__ import annotations

from collections.abc import Callable

from fimaq_deploy.report.build_page.sections.block_parity import parity
from fimaq_deploy.report.build_page.sections.environment import environment
from fimaq_deploy.report.build_page.sections.grids import grids
from fimaq_deploy.report.build_page.sections.latency import latency
from fimaq_deploy.report.build_page.sections.layer_plan import layer_plan
from fimaq_deploy.report.build_page.sections.mix import mix
from fimaq_deploy.report.build_page.sections.pictures import pictures
from fimaq_deploy.report.build_page.sections.reconstruction import reconstruction
from fimaq_deploy.report.build_page.sections.results import results
from fimaq_deploy.report.build_page.sections.rewrites import rewrites
from fimaq_deploy.report.build_page.sections.sensitivity import sensitivity
from fimaq_deploy.report.build_page.sections.targets import targets
from fimaq_deploy.report.build_page.verdict import cards, concerns, failures, status, verdict
from fimaq_deploy.report.page.parts import Page, Section
from fimaq_deploy.report.schema import Report
from fimaq_deploy.report.words import moment_text

# The most telling first.
SECTIONS: list[Callable[[Report], Section]] = [
    results,
    pictures,
    mix,
    rewrites,
    reconstruction,
    grids,
    sensitivity,
    latency,
    layer_plan,
    parity,
    targets,
    environment,
]


def report_page(report: Report) -> Page:
    """All that is told of one build."""
    said, tone = status(report)
    return Page(
        kind="Build report",
        heading=f"{report.model.name}, {report.recipe['name']}",
        status=said,
        tone=tone,
        headline=verdict(report),
        reasons=(*failures(report, report.max_drop), *concerns(report)),
        cards=cards(report),
        sections=sections(report),
        created=moment_text(report.created),
        command=report.command,
    )


def sections(report: Report) -> list[Section]:
    """Every section that has something to show."""
    return [section for make in SECTIONS if (section := make(report)).exhibits]
