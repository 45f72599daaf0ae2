"""What a build left, as far as another one is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fimaq_deploy.report.load import load_report
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.report.schema import Comparison, Figure, Report, Row


@dataclass(frozen=True)
class Build:
    """What one build left. name: how the user called it; predictions: None where only the report was kept."""

    name: str
    report: Report
    predictions: Predictions | None


def load_build(path: str | Path) -> Build:
    """A build from its folder or its report.json, with the predictions where they lie beside it.

    Raises:
        UserError: no report, or one that cannot be read, or unreadable predictions.
    """
    report = load_report(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / Path(report.predictions or "").name
    predictions = Predictions.load(file) if file.is_file() else None
    return Build(str(path), _against_the_original(report, predictions), predictions)


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
