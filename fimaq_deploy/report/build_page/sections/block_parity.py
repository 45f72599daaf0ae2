"""Stage by stage: where two runtimes part."""

from __future__ import annotations

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Report

_ABOUT = "Each stage is computed by two runtimes from the same input."


def parity(report: Report) -> Section:
    return Section("parity", "Parity", _ABOUT, _exhibits(report))


def _exhibits(report: Report) -> tuple[Exhibit, ...]:
    pairs = [pair for pair in report.parity if pair.stages]
    if not pairs:
        return ()
    parted = [f"{report.title_of(pair.to)} parts at {pair.first_parting}" for pair in pairs if pair.first_parting]
    lines = tuple(
        (
            stage.name,
            report.title_of(pair.to),
            "not finite" if stage.largest_difference is None else f"{stage.largest_difference:.2g}",
            f"{stage.differing:.2g}",
            "" if stage.largest_step is None else str(stage.largest_step),
            "" if stage.flipped is None else f"{stage.flipped:.2g}",
        )
        for pair in pairs
        for stage in pair.stages
    )
    drawn = any(stage.largest_difference for pair in pairs for stage in pair.stages)
    return (
        Exhibit(
            "stages",
            "; ".join(parted) or "Every stage agrees with fake-quant within the tolerance",
            "Largest difference from fake-quant. Stages without a mark are equal."
            if drawn
            else "Largest difference from fake-quant.",
            ("stage", "against", "largest difference", "differing %", "steps", "flipped %"),
            lines,
            paint=charts.parity(pairs, {row.id: row.title for row in report.rows}) if drawn else None,
            height=list_height(len({line[0] for line in lines})),
        ),
    )
