"""Builds as runs, in a real store of MLflow on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.report.timeline.runs import log_runs


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return (tmp_path / "runs").as_uri()


@pytest.fixture
def files(small_report: Callable[..., Any], tmp_path: Path) -> list[Path]:
    found = []
    for number, top1 in enumerate((97.5, 96.0)):
        folder = tmp_path / f"build{number}"
        folder.mkdir()
        (folder / "report.json").write_text(small_report(top1).to_json())
        (folder / "report.md").write_text("a page")
        found.append(folder / "report.json")
    return found


def test_a_build_becomes_one_run_however_often_it_is_logged(store: str, files: list[Path]) -> None:
    first = log_runs(files[:1], store)
    again = log_runs(files, store)
    assert [one.new for one in first] == [True] and [one.new for one in again] == [False, True]
    assert again[0].run == first[0].run
    client = mlflow.MlflowClient(store)
    (experiment,) = client.search_experiments(filter_string="name = 'fimaq-deploy'")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_run_holds_what_was_asked_every_figure_and_the_report(
    store: str, files: list[Path], small_report: Callable[..., Any]
) -> None:
    (one,) = log_runs(files[:1], store, "vision")
    client, report = mlflow.MlflowClient(store), small_report(97.5)
    run = client.get_run(one.run)
    assert run.info.status == "FINISHED" and run.info.start_time > 0
    assert run.data.params["model"] == report.model.name and run.data.params["command"] == report.command
    row = report.deployed[0]
    assert run.data.metrics[f"{row.id}/size_bytes"] == row.size_bytes
    latency = row.latency[0]
    assert run.data.metrics[f"{row.id}/latency_ms/batch_{latency.batch_size}"] == latency.p50_ms
    assert {file.path for file in client.list_artifacts(one.run)} == {"report.json", "report.md"}


def test_a_store_that_is_none_is_one_line(store: str, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for address in ("nowhere://runs", "http://127.0.0.1:9", (tmp_path / "file").as_uri()):
        with pytest.raises(UserError, match=r"^--mlflow .*expected a tracking server or store") as told:
            log_runs(files, address)
        assert "\n" not in str(told.value)
