"""What quantizing each block and layer costs."""

from __future__ import annotations

from collections.abc import Sequence

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Report, Sensitivity

_MOST = 20
_ABOUT = (
    "The Fisher loss of the logits when one part alone is quantized, and by how much the loss falls when everything "
    "but that part is. It needs no labels."
)


def sensitivity(report: Report) -> Section:
    return Section("sensitivity", "Sensitivity", _ABOUT, _exhibits(report.sensitivity))


def _exhibits(found: Sequence[Sensitivity]) -> tuple[Exhibit, ...]:
    kinds = ("block", "layer")
    return tuple(
        _most_sensitive(kind, [one for one in found if one.kind == kind])
        for kind in kinds
        if any(one.kind == kind for one in found)
    )


def _most_sensitive(kind: str, found: Sequence[Sensitivity]) -> Exhibit:
    ordered = sorted(found, key=lambda one: -one.alone)
    seen = ordered[:_MOST]
    total = sum(one.alone for one in found)
    share = f": {100 * ordered[0].alone / total:.0f} % of the sum over all {kind}s" if total > 0 else ""
    return Exhibit(
        f"sensitivity-{kind}",
        f"{ordered[0].name} costs the most{share}",
        f"The {len(seen)} most sensitive of {len(found)} {kind}s." if len(seen) < len(found) else f"Every {kind}.",
        (kind, "alone", "spared"),
        tuple((one.name, f"{one.alone:.3g}", f"{one.spared:.3g}") for one in ordered),
        paint=charts.sensitivity(seen),
        height=list_height(len(seen)),
    )
