"""What a build left, read from its folder or its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy import UserError
from fimaq_deploy import report as r
from fimaq_deploy.manifest import write_manifest
from fimaq_deploy.report.comparison.builds import load_build
from fimaq_deploy.report.comparison.judge import compare
from fimaq_deploy.report.predictions import PREDICTIONS, Predictions

CPU = "onnxruntime-cpu"


@pytest.fixture
def folder(full_report: r.Report, tmp_path: Path) -> Path:
    """A report and its predictions."""
    (tmp_path / "report.json").write_text(full_report.to_json(), encoding="utf-8")
    Predictions("a fingerprint", {CPU: np.arange(50, dtype=np.int32)}).save(tmp_path / PREDICTIONS)
    return tmp_path


def test_a_build_is_read_with_its_predictions_from_folder_or_file(folder: Path, full_report: r.Report) -> None:
    for path in (folder, folder / "report.json", str(folder)):
        found = load_build(path)
        assert (found.name, found.report.rows[0]) == (str(path), full_report.rows[0])
        assert found.predictions is not None
        assert found.predictions.images == "a fingerprint"
        assert found.predictions.rows[CPU].tolist() == list(range(50))


def test_where_only_the_report_was_kept_there_are_no_predictions(folder: Path, full_report: r.Report) -> None:
    (folder / PREDICTIONS).unlink()
    found = load_build(folder)
    assert (found.report, found.predictions) == (full_report, None)


def test_predictions_are_looked_for_beside_the_report_alone(folder: Path, full_report: r.Report) -> None:
    """A report that names a file elsewhere opens nothing there."""
    inner = folder / "inner"
    inner.mkdir()
    named = full_report.model_copy(update={"predictions": str(folder / PREDICTIONS)})
    (inner / "report.json").write_text(named.to_json(), encoding="utf-8")
    assert load_build(inner).predictions is None


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_unreadable_predictions_are_one_clear_line(folder: Path, content: bytes | None) -> None:
    whole = (folder / PREDICTIONS).read_bytes()
    (folder / PREDICTIONS).write_bytes(whole[:-100] if content is None else content)
    with pytest.raises(UserError, match=r"cannot read .*predictions\.safetensors.*build again") as error:
        load_build(folder)
    assert "\n" not in str(error.value)


def test_no_report_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read report .*: no such file.*name a report\.json"):
        load_build(tmp_path)


def test_a_build_from_before_is_compared_with_its_original(full_report: r.Report, tmp_path: Path) -> None:
    rows = {"pytorch-fp32": np.arange(100) % 7, CPU: np.where(np.arange(100) < 30, 0, np.arange(100) % 7)}
    neighbour = r.Comparison(to="onnx-reference", agreement=100.0, largest_difference=0.0)
    (tmp_path / "report.json").write_text(
        full_report.model_copy(
            update={"rows": [full_report.rows[0], full_report.rows[3].model_copy(update={"comparison": neighbour})]}
        ).to_json()
    )
    Predictions("x", {name: found.astype(np.int32) for name, found in rows.items()}).save(tmp_path / PREDICTIONS)
    row = load_build(tmp_path).report.row(CPU)
    assert row is not None and row.original is not None
    assert row.original.agreement == pytest.approx(100 * np.mean(rows["pytorch-fp32"] == rows[CPU]))


def test_rows_that_predicted_nothing_stay_as_they_are(folder: Path, full_report: r.Report) -> None:
    assert load_build(folder).report.rows == full_report.rows, "the original's predictions were not kept"


def labelled(report: r.Report, folder: Path, top1: float) -> r.Report:
    """A report beside predictions of which 30 of 50 are right."""
    labels = np.where(np.arange(50) < 30, np.arange(50), -5)
    Predictions("a fingerprint", {CPU: np.arange(50, dtype=np.int32)}, labels).save(folder / PREDICTIONS)
    accuracy = r.Accuracy(images=50, top1=top1, top5=None, interval=(0, 100))
    rows = [row.model_copy(update={"accuracy": accuracy}) if row.id == CPU else row for row in report.rows]
    found = report.model_copy(update={"rows": rows})
    (folder / "report.json").write_text(found.to_json(), encoding="utf-8")
    return found


def test_a_report_that_was_edited_is_noticed_by_its_predictions(folder: Path, full_report: r.Report) -> None:
    labelled(full_report, folder, 60.0)
    assert load_build(folder).predictions is not None
    labelled(full_report, folder, 95.0)
    with pytest.raises(UserError, match=r"says 95\.00 % top-1 of .*, the predictions beside it 60\.00 %: ") as error:
        load_build(folder)
    assert "\n" not in str(error.value)


def test_what_no_manifest_promises_is_said_in_the_comparison(folder: Path, full_report: r.Report) -> None:
    loose = load_build(folder)
    assert not loose.checked
    told = "no manifest of a build tells whether the report is what was written"
    assert [note for note in compare(loose, loose).comparisons[0].notes if note.endswith(told)]
    write_manifest(folder, {})
    held = load_build(folder)
    assert held.checked and load_build(folder / "report.json").checked
    assert not [note for note in compare(held, held).comparisons[0].notes if note.endswith(told)]
