"""How tensors fill their grids."""

from __future__ import annotations

from collections.abc import Sequence

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import GridUse, Report

_ABOUT = "How the weights, and the activations of the calibration images, fill the integers that they may take."


def grids(report: Report) -> Section:
    return Section("grids", "Grids", _ABOUT, _exhibits(report.grids))


def _exhibits(grids: Sequence[GridUse]) -> tuple[Exhibit, ...]:
    if not grids:
        return ()
    least = min(grids, key=charts.used_share)
    most = max(grids, key=lambda grid: grid.clipped)
    lines = tuple(
        (
            g.name,
            g.kind,
            str(g.bits),
            f"{g.used_levels} of {g.levels}",
            f"{charts.used_share(g):.0f}",
            f"{g.clipped:.2g}",
            "" if g.evaluated is None else f"{g.evaluated:.2g}",
        )
        for g in grids
    )
    return (
        Exhibit(
            "grid-use",
            f"The {least.kind} of {least.name} uses the fewest of its integers: {least.used_levels} of {least.levels}",
            "Integers that occur, as a share of those that the grid has.",
            ("tensor", "kind", "bits", "integers", "used %", "clipped %", "at evaluation %"),
            lines,
            paint=charts.grid_use(grids),
        ),
        Exhibit(
            "clipping",
            f"The {most.kind} of {most.name} clips the most: {most.clipped:.2g} % of its values"
            if most.clipped
            else "No value is clipped",
            "Values beyond the largest integer of the grid. A little clipping buys finer steps for the rest."
            f"{_domain(grids)}",
            paint=charts.clipping(grids),
        ),
    )


def _domain(grids: Sequence[GridUse]) -> str:
    """How evaluation images compare, by the tensor of which they lie farthest beyond the calibrated range."""
    seen = [grid for grid in grids if grid.evaluated is not None]
    if not seen:
        return ""
    mean, own = (sum(values) / len(seen) for values in ([g.evaluated or 0 for g in seen], [g.clipped for g in seen]))
    worst = max(seen, key=lambda grid: (grid.evaluated or 0) - grid.clipped)
    return (
        f" Of activations {mean:.2g} % are clipped on evaluation images and {own:.2g} % on calibration images; "
        f"farthest apart are those of {worst.name}, {worst.evaluated:.2g} and {worst.clipped:.2g} %."
    )
