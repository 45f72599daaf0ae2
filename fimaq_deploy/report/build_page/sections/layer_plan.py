"""The kernels that engines were compiled to."""

from __future__ import annotations

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
    gemms, int8 = sum(b.gemms for b in audit.blocks), sum(b.int8_gemms for b in audit.blocks)
    attention = sorted({block.attention for block in audit.blocks if block.attention})
    decoded = sum(block.weight_only_gemms for block in audit.blocks)
    told = f", attention {' and '.join(attention)}" if attention else ""
    left = sum(block.left_alone for block in audit.blocks)
    others = "".join(f", {count} {kind}" for count, kind in ((decoded, "weight-only"), (left, "left alone")) if count)
    return f"{int8} of {gemms} GEMMs run in INT8{others}{told}"


def _plan_cells(block: AuditBlock) -> tuple[str, ...]:
    return (
        block.name,
        str(block.kernels),
        "" if block.twin_kernels is None else str(block.twin_kernels),
        f"{block.int8_gemms} of {block.gemms}",
        block.attention or "",
        str(block.dequantized_weights),
        str(block.conversions),
    )
