"""`fimaq-deploy sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import StepLine, print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.pipeline.sweeps import SweepResult


def sweep(
    plan: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="Models, recipes, targets; docs/how-to/sweep.md has one.")
    ],
    out: Annotated[
        str | None, typer.Option(help="The folder, or with --on a URL; default: what the file says, else build/FILE.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(metavar="CLUSTER", help="ray, or ray://HOST:PORT; default: here, cell by cell.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Build models × recipes × targets, or go on with it; exit code 1 where a build failed or missed its gate."""
    from fimaq_deploy.pipeline.sweeps import sweep as run_sweep

    with StepLine() as progress:
        result = run_sweep(plan, out=out, on=on, progress=progress)
    if not write_document(json, result.document()):
        _print(result)
    for cell in result.sweep.failed:
        print_failure(f"failed: {cell.name}: {cell.error}")
    for missed in result.sweep.missed:
        print_failure(f"failed: {missed}")
    if result.sweep.failed or result.sweep.missed:
        raise typer.Exit(1)


def _print(result: SweepResult) -> None:
    from fimaq_deploy.report.sweep_page.page import HEADER, cells, headline
    from fimaq_deploy.report.sweep_page.records import leaderboard

    table = Table(*HEADER, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place in leaderboard(result.sweep):
        table.add_row(*cells(place))
    stdout.print(table, width=None if stdout.is_terminal else 120)
    stdout.print(headline(result.sweep), soft_wrap=True)
    stdout.print(f"Wrote {result.out / 'sweep.html'}", soft_wrap=True)
