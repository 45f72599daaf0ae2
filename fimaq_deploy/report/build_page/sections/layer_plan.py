"""The kernels that engines were compiled to."""

from __future__ import annotations

from collections.abc import Sequence

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import list_height
from fimaq_deploy.report.page.parts import Exhibit, Section, compact
from fimaq_deploy.report.schema import Audit, AuditBlock, Report

_ABOUT = "The kernels that each block was compiled to, beside those of the model in full precision."


def layer_plan(report: Report) -> Section:
    return Section("layer-plan", "Layer plan", _ABOUT, tuple(_exhibit(audit) for audit in report.audits))


def _exhibit(audit: Audit) -> Exhibit:
    capability = f", compute capability {audit.compute_capability}" if audit.compute_capability else ""
    exhibit = Exhibit(
        f"audit-{audit.target}",
        f"{audit.target}: {_plan_title(audit)}",
        f"Kernels of each block{capability}. Brown: more kernels than the twin, a GEMM without integers, or a weight "
        "dequantized at run time.",
        ("block", "kernels", "twin", "INT8 GEMMs", "attention", "weights dequantized", "conversions"),
        tuple(_plan_cells(block) for block in audit.blocks),
        tuple(number for number, block in enumerate(audit.blocks) if charts.plan_is_worse(block)),
        paint=charts.layer_plan(audit.blocks) if audit.blocks else None,
        height=list_height(len(audit.blocks)),
    )
    return compact(exhibit)


def _plan_title(audit: Audit) -> str:
    gemms, in_types = sum(b.gemms for b in audit.blocks), _in_types(audit.blocks)
    attention = sorted({block.attention for block in audit.blocks if block.attention})
    decoded = sum(block.weight_only_gemms for block in audit.blocks)
    told = f", attention {' and '.join(attention)}" if attention else ""
    left = sum(block.left_alone for block in audit.blocks)
    others = "".join(f", {count} {kind}" for count, kind in ((decoded, "weight-only"), (left, "left alone")) if count)
    kinds = " and ".join(f"{count} of {gemms} GEMMs run in {kind}" for kind, count in in_types.items())
    return f"{kinds}{others}{told}"


def _in_types(blocks: Sequence[AuditBlock]) -> dict[str, int]:
    """How many GEMMs run in each type of few bits; INT8 where there is none."""
    counts = {
        "INT8": sum(block.int8_gemms for block in blocks),
        "FP8": sum(block.fp8_gemms for block in blocks),
        "FP4": sum(block.fp4_gemms for block in blocks),
    }
    return {kind: count for kind, count in counts.items() if count} or {"INT8": 0}


def _kind(kind: str) -> str:
    """What the column's header does not say already."""
    return "" if kind == "INT8" else f" {kind}"


def _plan_cells(block: AuditBlock) -> tuple[str, ...]:
    return (
        block.name,
        str(block.kernels),
        "" if block.twin_kernels is None else str(block.twin_kernels),
        ", ".join(f"{count} of {block.gemms}" + _kind(kind) for kind, count in _in_types([block]).items()),
        block.attention or "",
        str(block.dequantized_weights),
        str(block.conversions),
    )
