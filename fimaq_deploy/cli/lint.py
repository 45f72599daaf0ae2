"""`fimaq-deploy lint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.graph.rules import Finding, Findings


def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A QDQ ONNX file, whoever wrote it.")],
    target: Annotated[str, typer.Option(help="Where it will run (see `doctor`).")],
    json: JsonOption = None,
    every: Annotated[bool, typer.Option("--all", help="List every place, not only the first of each rule.")] = False,
) -> None:
    """Find what keeps a QDQ file from running on a target as it was meant to. Exit code 1 where there are errors."""
    from fimaq_deploy.graph.rules import lint as find

    found = find(model, target)
    if not write_document(json, found.document()):
        _print(found, every)
    if found.errors:
        raise typer.Exit(1)


def _where(place: Finding) -> str:
    tensor = f" reads {place.tensor}" if place.tensor else ""
    return f"{place.node}{tensor}" or "the file"


def _print(findings: Findings, every: bool) -> None:
    table = Table("", "rule", "places", "where, what is wrong and how to mend it", box=SIMPLE_HEAD, show_edge=False)
    for rule in dict.fromkeys((finding.severity, finding.rule) for finding in findings):
        places = [finding for finding in findings if (finding.severity, finding.rule) == rule]
        for number, place in enumerate(places if every else places[:1]):
            head = (*rule, str(len(places))) if number == 0 else ("", "", "")
            table.add_row(*head, _where(place) + f"\n{place.problem}\n{place.remedy}".rstrip())
    if findings:
        stdout.print(table)
    told = f"{findings.errors} errors, {findings.warnings} warnings"
    stdout.print(f"{findings.file} for {findings.target}: {told}", soft_wrap=True)
