"""The table of a report's rows, as text."""

from __future__ import annotations

from collections.abc import Callable

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.table import cells, header, not_run_text
from fimaq_deploy.report.schema import Figure

Make = Callable[..., r.Report]


def test_a_row_is_readable(small_report: Make) -> None:
    """Of a report from before 0.2.0, which says nothing of its outputs."""
    report = small_report()
    assert header(report) == ("", "top-1 %", "top-5 %", "agree %", "ms", "speed-up", "size")
    assert cells(report, report.rows[2]) == ("ONNX Runtime", "97.50", "100.00", "99.50", "0.81", "1.25×", "1.0 MB")


def test_every_row_fits_the_header(full_report: r.Report) -> None:
    assert {len(cells(full_report, row)) for row in full_report.rows} == {len(header(full_report))}


def test_a_row_that_was_not_run_has_its_size_and_no_figure(small_report: Make) -> None:
    report = small_report()
    row = report.rows[3]
    assert cells(report, row) == ("TensorRT-RTX", "not run", "", "", "", "", "2.0 MB")
    assert not_run_text(row) == "not run: no driver"


def test_what_was_not_measured_is_empty(small_report: Make) -> None:
    report = small_report(labelled=False)
    assert cells(report, report.rows[1]) == ("ONNX FP32", "", "", "", "", "", "4.0 MB")


def test_the_users_own_figure_comes_first_and_other_outputs_have_their_headline(answering: Make) -> None:
    report = answering("embedding", cosine=0.999, recall1=98.0)
    main = report.outputs[0]
    own = [row.model_copy(update={"own": [Figure(name="f1", value=0.5)]}) for row in report.rows]
    report = report.model_copy(update={"rows": own, "outputs": [main, main.model_copy(update={"name": "boxes"})]})
    columns = [f"{m.title} {m.unit}".strip() for m in main.figures if m.column]
    assert columns, "an embedding has figures for the table"
    told = [f"boxes: {m.title} {m.unit}".strip() for m in main.figures if m.headline]
    assert header(report) == ("", "f1", *columns, *told, "ms", "speed-up", "size")
    shown = dict(zip(header(report), cells(report, report.rows[1]), strict=True))
    assert (shown["f1"], shown["cosine"], shown["boxes: cosine"]) == ("0.5000", "0.9990", "")
