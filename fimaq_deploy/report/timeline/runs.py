"""Builds as runs of MLflow (extra `mlflow`): what was asked as parameters, every figure as a metric, the report beside.

A build is known by the SHA-256 of its report, so that it becomes one run however often it is logged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.report.load import load_report
from fimaq_deploy.report.schema import Report, Row

EXPERIMENT = "fimaq-deploy"
_DIGEST = "fimaq_deploy.report_sha256"
_PAGES = ("report.json", "report.md", "report.html", "recipe.yaml")
_LONGEST_VALUE = 500  # of a parameter, in every store


class Logged(NamedTuple):
    """A build and its run. new: whether it was logged now."""

    build: str
    run: str
    new: bool


def log_runs(files: list[Path], address: str, experiment: str = EXPERIMENT) -> list[Logged]:
    """Log the builds of some reports, those that are not there yet.

    address: of the tracking server or store, such as http://localhost:5000 or sqlite:///runs.db.

    Raises:
        UserError: MLflow is not installed, or the store cannot be reached.
    """
    client = _client(address)
    reports = [(file, load_report(file)) for file in files]
    try:
        found = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if found is None else found.experiment_id
        return [_logged(client, number, file, report) for file, report in reports]
    except Exception as error:  # of the store, its transport and its database
        raise _unreachable(address, error) from None


def _client(address: str) -> Any:
    try:
        library = import_module("mlflow")
    except ImportError as error:
        raise UserError(f"--mlflow needs the package mlflow ({error}): pip install 'fimaq-deploy[mlflow]'") from None
    try:
        return library.MlflowClient(address)
    except Exception as error:  # whatever the store of this address says
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"--mlflow {shown(address)} ({reason}): expected a tracking server or store that can be reached")


def _logged(client: Any, experiment: str, file: Path, report: Report) -> Logged:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    known = client.search_runs([experiment], f"tags.`{_DIGEST}` = '{digest}'", max_results=1)
    if known:
        return Logged(str(file.parent), known[0].info.run_id, False)
    started = int(1000 * datetime.fromisoformat(report.created).timestamp())
    name = f"{report.model.name} {report.recipe.get('name', '')}".strip()
    run = client.create_run(experiment, start_time=started, tags={_DIGEST: digest}, run_name=name).info.run_id
    for key, value in _parameters(report):
        client.log_param(run, key, value[:_LONGEST_VALUE])
    for key, number in _metrics(report):
        client.log_metric(run, key, number, timestamp=started)
    for page in _PAGES:
        if (file.parent / page).is_file():
            client.log_artifact(run, str(file.parent / page))
    client.set_terminated(run, end_time=started + int(1000 * sum(step.seconds for step in report.steps)))
    return Logged(str(file.parent), run, True)


def _parameters(report: Report) -> Iterator[tuple[str, str]]:
    yield "model", report.model.name
    yield "weights", report.model.weights
    yield "recipe", str(report.recipe.get("name", ""))
    yield "targets", ", ".join(target.name for target in report.targets)
    yield "seed", str(report.seed)
    yield "calibration", report.data.calibration
    yield "evaluation", report.data.evaluation
    yield "command", report.command


def _metrics(report: Report) -> Iterator[tuple[str, float]]:
    for row in report.rows:
        for key, number in _of_row(row):
            yield f"{row.id}/{key}", number


def _of_row(row: Row) -> Iterator[tuple[str, float]]:
    beside = [] if row.original is None else row.original.figures
    for of, figures in (("labels", row.labelled), ("original", beside), ("own", row.own)):
        for figure in figures:
            if figure.value is not None:
                yield "/".join(part for part in (of, figure.output, figure.name) if part), figure.value
    for latency in row.latency:
        yield f"latency_ms/batch_{latency.batch_size}", latency.p50_ms
        if latency.speedup is not None:
            yield f"speedup/batch_{latency.batch_size}", latency.speedup
    if row.size_bytes is not None:
        yield "size_bytes", float(row.size_bytes)
