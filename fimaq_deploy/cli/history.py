"""`fimaq-deploy history`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.report.timeline.records import History


def history(
    builds: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Builds, or folders of them.")],
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Log each build as a run of this MLflow server or store.")
    ] = None,
    mlflow_experiment: Annotated[str, typer.Option(metavar="NAME", help="Where to, there.")] = "fimaq-deploy",
    json: JsonOption = None,
) -> None:
    """Show the builds of each model over time. Exit code 1 where a figure's newest change is for the worse."""
    from fimaq_deploy.report.timeline.page import write_history
    from fimaq_deploy.report.timeline.records import history as read_history
    from fimaq_deploy.report.timeline.records import report_files

    found = read_history(builds)
    if mlflow is not None:
        from fimaq_deploy.report.timeline.runs import log_runs

        logged = log_runs(report_files(builds), mlflow, mlflow_experiment)
    if html is not None:
        write_history(found, html, shlex.join(["fimaq-deploy", "history", *map(str, builds), "--html", str(html)]))
    if not write_document(json, found.document()):
        _print(found)
        if mlflow is not None:
            new = sum(one.new for one in logged)
            stdout.print(f"{new} of {len(logged)} builds became runs, the others were there already")
    for text in found.worse:
        print_failure(f"worse: {text}")
    if found.worse:
        raise typer.Exit(1)


def _print(found: History) -> None:
    table = Table("figure", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("builds", "first", "now", "changes"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.series:
        first, last = one.points[0].value, one.points[-1].value
        table.add_row(one.name, str(len(one.points)), f"{first:.5g}", f"{last:.5g}", str(len(one.changes)))
    stdout.print(table)
