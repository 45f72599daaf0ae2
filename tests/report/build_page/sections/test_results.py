"""What was measured of every way to run the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.results import results
from fimaq_deploy.report.page.parts import Exhibit


def shown(report: r.Report) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for exhibit in results(report).exhibits}


def test_the_images_are_told_with_their_notes(full_report: r.Report) -> None:
    assert results(full_report).text == (
        "Calibrated on 1,024 images (folder my images), evaluated on 50,000 (folder validation). 2 unreadable images "
        "were left out. predictions.safetensors holds what every row did with each image."
    )
    named = full_report.data.model_copy(update={"notes": ["model.onnx is the encoder"]})
    assert ". model.onnx is the encoder." in results(full_report.model_copy(update={"data": named})).text
    data = full_report.data.model_copy(update={"labelled": False, "notes": []})
    bare = results(full_report.model_copy(update={"data": data, "predictions": None}))
    assert bare.text.endswith("(folder validation). They have no labels, so accuracy is not known.")


def test_rows_to_ship_are_marked_and_absent_ones_say_why(full_report: r.Report) -> None:
    rows = shown(full_report)["rows"]
    assert [rows.rows[number][0] for number in rows.marked] == ["ONNX Runtime CPU", "TensorRT-RTX"]
    assert rows.note.endswith("OpenVINO CPU: not run: the openvino package is not installed.")


@pytest.mark.parametrize(
    ("top1", "speedup", "told"),
    [
        (79.31, 1.75, "loses 0.52 points of top-1 at 1.75× the speed"),
        (80.0, 1.75, "gains 0.17 points of top-1 at 1.75× the speed"),
        (79.83, 1.0, "keeps its top-1 with no clear change of speed"),
    ],
)
def test_the_trade_is_told_as_it_was(full_report: r.Report, top1: float, speedup: float, told: str) -> None:
    row = full_report.rows[3]
    assert row.accuracy
    latency = row.latency[0].model_copy(update={"speedup": speedup, "speedup_interval": (speedup, speedup)})
    accuracy = row.accuracy.model_copy(update={"top1": top1})
    row = row.model_copy(update={"latency": [latency], "accuracy": accuracy})
    report = full_report.model_copy(update={"rows": [*full_report.rows[:3], row]})
    assert shown(report)["tradeoff"].title == f"ONNX Runtime CPU {told}"


def test_the_trade_has_interval_and_change_of_every_row(full_report: r.Report) -> None:
    found = {row[0]: row[1:] for row in shown(full_report)["tradeoff"].rows}
    assert found["PyTorch FP32"] == ("50,000", "79.83", "79.48 to 80.18", "", "")
    assert found["ONNX Runtime CPU"] == ("50,000", "79.31", "78.96 to 79.66", "-0.52", "11.80")
    assert "OpenVINO CPU" not in found


def test_without_latency_there_is_no_trade(full_report: r.Report) -> None:
    rows = [row.model_copy(update={"latency": []}) for row in full_report.rows]
    assert "tradeoff" not in shown(full_report.model_copy(update={"rows": rows}))


def test_every_figure_of_what_is_shipped_says_what_it_was_measured_of(answering: Callable[..., r.Report]) -> None:
    report = answering("classes", {"top1": 80.0}, top1=(78.5, (77.0, 80.0)), agreement=97.0)
    found: dict[str, Any] = {row[1]: (row[2], row[3], row[4]) for row in shown(report)["figures"].rows}
    assert found["top-1"] == ("78.50 %", "77.00 to 80.00", "outputs and labels")
    assert found["agree"] == ("97.00 %", "", "outputs and PyTorch FP32's")
    (judged,) = shown(report)["figures"].marked
    assert shown(report)["figures"].rows[judged][1] == "top-1"


def test_the_chain_is_a_diagnosis(full_report: r.Report) -> None:
    broken = r.Comparison(to="pytorch-fp32", agreement=None, largest_difference=float("nan"))
    row = full_report.rows[3].model_copy(update={"comparison": broken})
    report = full_report.model_copy(update={"rows": [*full_report.rows[:3], row]})
    chain = shown(report)["chain"].rows
    assert chain[0] == ("ONNX Runtime FP32", "PyTorch FP32", "agree 97.30 %", "0.81")
    assert chain[-1] == ("ONNX Runtime CPU", "PyTorch FP32", "", "not finite")


def test_files_are_told_where_memory_was_measured(full_report: r.Report) -> None:
    files = shown(full_report)["files"].rows
    assert files[2] == ("ONNX Runtime CPU", "model.onnxruntime-cpu", "22.8 MB", "91.2 MB")
    rows = [row.model_copy(update={"peak_memory_bytes": None}) for row in full_report.rows]
    assert "files" not in shown(full_report.model_copy(update={"rows": rows}))
