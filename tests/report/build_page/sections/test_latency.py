"""How long a batch takes, with what noise may explain."""

from __future__ import annotations

from collections.abc import Callable

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.latency import latency
from fimaq_deploy.report.page.parts import Exhibit


def shown(report: r.Report) -> Exhibit:
    (exhibit,) = latency(report).exhibits
    return exhibit


def test_a_line_for_every_row_and_batch_size(full_report: r.Report) -> None:
    exhibit = shown(full_report)
    assert exhibit.header == (
        *("", "batch", "p50 ms", "p90 ms", "p99 ms", "floor ms", "images / s", "speed-up", "over"),
    )
    assert [row[:2] for row in exhibit.rows[:3]] == [("ONNX Runtime FP32", size) for size in ("1", "8", "32")]
    assert len(exhibit.rows) == 3 * sum(bool(row.latency) for row in full_report.rows)
    (told,) = (row for row in exhibit.rows if row[:2] == ("ONNX Runtime CPU", "1"))
    assert told[2:] == (*("11.80", "12.98", "17.70", "4.72", "85", "1.75× (1.70 to 1.80)", "ONNX Runtime FP32"),)


def test_without_a_roofline_nothing_is_dashed_and_no_column_is_empty(small_report: Callable[..., r.Report]) -> None:
    exhibit = shown(small_report())
    assert exhibit.header == ("", "batch", "p50 ms", "p90 ms", "p99 ms", "images / s", "speed-up", "over")
    assert "Dashed" not in exhibit.note
    assert exhibit.title == "ONNX Runtime over ONNX FP32: 1.25× at batch 1"


def test_nothing_measured_is_nothing_shown(full_report: r.Report) -> None:
    assert latency(full_report.model_copy(update={"rows": full_report.rows[:1]})).exhibits == ()


def test_a_difference_within_the_noise_is_not_called_one(full_report: r.Report) -> None:
    row = full_report.rows[3]
    unsure = row.latency[0].model_copy(update={"speedup_interval": (0.9, 2.1)})
    noisy = row.model_copy(update={"latency": [unsure, *row.latency[1:]]})
    report = full_report.model_copy(update={"rows": [*full_report.rows[:3], noisy, *full_report.rows[4:]]})
    title = shown(report).title
    assert title == "ONNX Runtime CPU over ONNX Runtime FP32: 1.75× at batch 8, 1.75× at batch 32, " + (
        "no clear difference at batch 1"
    )
