"""`fimaq-deploy compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stderr, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.report.comparison.records import Judgement

_LOG_WIDTH = 120  # the log of a CI job has no width of its own


def compare(
    new: Annotated[Path, typer.Argument(help="The folder of a build, or its report.json.")],
    baselines: Annotated[list[Path], typer.Argument(metavar="BASELINE...", help="Builds to compare it with.")],
    max_drop: Annotated[
        float | None,
        typer.Option(help="Fail when more is lost against the labels (points of top-1, mAP, …) or in your own figure."),
    ] = None,
    max_slowdown: Annotated[
        float | None, typer.Option(help="Fail when more percent of speed, relative to full precision, are lost.")
    ] = None,
    max_growth: Annotated[float | None, typer.Option(help="Fail when files grow by more percent.")] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Fail when fewer answers of the new build are those of its original."),
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="Fail when outputs of the new build are farther from its original's.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the same as text.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML for a CI server.")] = None,
    annotations: Annotated[bool, typer.Option("--annotations", help="Print GitHub-style annotations.")] = False,
    json: JsonOption = None,
) -> None:
    """Compare a build with earlier ones; exit code 1 for a regression, 2 where they cannot be compared."""
    from fimaq_deploy.report.comparison.annotations import to_annotations
    from fimaq_deploy.report.comparison.judge import compare as run_compare
    from fimaq_deploy.report.comparison.page import write_comparison

    judgement = run_compare(
        new,
        baselines,
        max_drop=max_drop,
        max_slowdown=max_slowdown,
        max_growth=max_growth,
        min_agreement=min_agreement,
        min_cosine=min_cosine,
    )
    write_comparison(judgement, html=html, markdown=markdown, junit=junit)
    taken = write_document(json, judgement.document())
    if not taken:
        _print(judgement)
    for text in _failures(judgement):
        print_failure(text)
    for line in to_annotations(judgement) if annotations else ():
        (stderr if taken else stdout).print(line, soft_wrap=True)
    raise typer.Exit(judgement.exit_code)


def _failures(judgement: Judgement) -> list[str]:
    found = [text for one in judgement.comparisons for text in (*one.regressions, *one.obstacles)]
    return [*found, *judgement.broken]


def _print(judgement: Judgement) -> None:
    from fimaq_deploy.report.comparison.words import HEADER, cells, summary

    for comparison in judgement.comparisons:
        table = Table(*HEADER, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
        for difference in comparison.differences:
            table.add_row(*(cell.replace(" (", "\n(") for cell in cells(difference)))
        stdout.print(f"{judgement.new} against {comparison.baseline}", soft_wrap=True)
        stdout.print(table, width=None if stdout.is_terminal else _LOG_WIDTH)
        for text in (*comparison.notes, *comparison.doubts):
            stdout.print(text, soft_wrap=True)
    stdout.print(summary(judgement), soft_wrap=True)
