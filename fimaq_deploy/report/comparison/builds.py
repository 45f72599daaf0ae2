"""What a build left, as far as another one is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest
from fimaq_deploy.report.load import REPORT, load_report
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.report.schema import Comparison, Figure, Report, Row

_SAME = 1e-3  # points of top-1 by which a report's number may be rounded


@dataclass(frozen=True)
class Build:
    """What one build left. name: how the user called it; predictions: None where only the report was kept.

    checked: whether a manifest beside them says that they are what the build wrote.
    """

    name: str
    report: Report
    predictions: Predictions | None
    checked: bool = True


def load_build(path: str | Path) -> Build:
    """A build from its folder or its report.json, with the predictions where they lie beside it.

    Raises:
        UserError: no report, one that cannot be read, unreadable predictions, or ones from which another top-1 follows.
    """
    report = load_report(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / Path(report.predictions or "").name
    predictions = Predictions.load(file) if file.is_file() else None
    if predictions:
        _require_own(report, predictions, folder)
    promised = (read_manifest(folder) or {}).get("files", {})
    checked = (REPORT if Path(path).is_dir() else Path(path).name) in promised
    return Build(str(path), _against_the_original(report, predictions), predictions, checked)


def _require_own(report: Report, predictions: Predictions, folder: Path) -> None:
    """Refuse a report whose top-1 is not that of the predictions: where no manifest tells, one of them was edited."""
    labels = predictions.labels
    for row in report.rows:
        known = predictions.rows.get(row.id)
        if row.accuracy is None or known is None or labels is None or labels.ndim != 1:
            continue
        found = 100 * float(np.mean(known == labels))
        if abs(found - row.accuracy.top1) > _SAME:
            raise UserError(
                f"{folder}: the report says {row.accuracy.top1:.2f} % top-1 of {row.title}, the predictions beside it "
                f"{found:.2f} %: one of them was changed or is of another build; copy both again, or build again"
            )


def _against_the_original(report: Report, predictions: Predictions | None) -> Report:
    """A report from before 0.2.0 compares rows with their neighbours; what they predicted tells the rest."""
    if report.outputs or predictions is None:
        return report
    rows = [_with_original(row, report.baseline.id, predictions) for row in report.rows]
    return report.model_copy(update={"rows": rows})


def _with_original(row: Row, original: str, predictions: Predictions) -> Row:
    known = predictions.rows
    if row.id == original or row.id not in known or original not in known:
        return row
    alike = 100 * float(np.mean((known[row.id] == known[original]) & (known[row.id] >= 0)))
    figure = Figure(output="logits", name="agreement", value=alike)
    found = Comparison(to=original, agreement=alike, largest_difference=None, figures=[figure])
    return row.model_copy(update={"original": found})
