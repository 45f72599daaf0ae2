"""The kernels that engines were compiled to; worse blocks are marked."""

from __future__ import annotations

from typing import Any

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.layer_plan import layer_plan
from fimaq_deploy.report.page.parts import Exhibit


def shown(report: r.Report, **changes: Any) -> Exhibit:
    (audit,) = report.audits
    (exhibit,) = layer_plan(report.model_copy(update={"audits": [audit.model_copy(update=changes)]})).exhibits
    return exhibit


def test_a_plan_is_counted_and_the_worse_block_marked(full_report: r.Report) -> None:
    exhibit = shown(full_report)
    assert exhibit.id == "audit-tensorrt-rtx"
    assert exhibit.title == "tensorrt-rtx: 47 of 48 GEMMs run in INT8, attention int8"
    assert [exhibit.rows[number][0] for number in exhibit.marked] == ["blocks.3"]
    assert exhibit.rows[3] == ("blocks.3", "7", "8", "3 of 4", "int8", "0", "1")
    assert "compute capability 8.9" in exhibit.note


def test_weight_only_products_and_those_left_alone_are_counted_apart(full_report: r.Report) -> None:
    block = full_report.audits[0].blocks[0]
    decoded = block.model_copy(update={"int8_gemms": 1, "weight_only_gemms": 3, "left_alone": 2})
    exhibit = shown(full_report, blocks=[decoded])
    assert exhibit.title == "tensorrt-rtx: 1 of 4 GEMMs run in INT8, 3 weight-only, 2 left alone, attention int8"
    assert exhibit.marked == (), "what decodes its own weights reads integers"


def test_columns_that_nobody_filled_are_left_out(full_report: r.Report) -> None:
    bare = [
        block.model_copy(update={"twin_kernels": None, "attention": None}) for block in full_report.audits[0].blocks
    ]
    exhibit = shown(full_report, blocks=bare, compute_capability=None)
    assert exhibit.header == ("block", "kernels", "INT8 GEMMs", "weights dequantized", "conversions")
    assert "attention" not in exhibit.title
    assert "compute capability" not in exhibit.note


def test_a_plan_without_blocks_has_no_chart(full_report: r.Report) -> None:
    exhibit = shown(full_report, blocks=[])
    assert (exhibit.paint, exhibit.rows) == (None, ())


def test_each_engine_has_its_plan(full_report: r.Report) -> None:
    (audit,) = full_report.audits
    two = full_report.model_copy(update={"audits": [audit, audit.model_copy(update={"target": "tensorrt"})]})
    assert [exhibit.id for exhibit in layer_plan(two).exhibits] == ["audit-tensorrt-rtx", "audit-tensorrt"]
    assert layer_plan(full_report.model_copy(update={"audits": []})).exhibits == ()
