"""`fimaq-deploy parity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.verify.block_parity import Comparison, Outcome
    from fimaq_deploy.verify.stages import StageParity


def parity(
    subject: Annotated[Path, typer.Argument(metavar="BUILD|FILE", help="A build, or a quantized.safetensors.")],
    model: Annotated[str | None, typer.Option(help="What it was made from; default: what the build says.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of that model; default: what the build says.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images; default: those that ship, or made ones.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many images to compare on.")] = 8,
    target: Annotated[
        list[str] | None,
        typer.Option(help="What else runs it. Repeatable; default: the build's targets that run here."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compare fake-quant, ONNX and engines block by block, and weights exactly. Exit code 1 where they part."""
    from fimaq_deploy.verify.block_parity import parity as run_parity

    outcome = run_parity(subject, model=model, weights=weights, images=images, count=count, targets=target)
    if not write_document(json, outcome.document()):
        _print(outcome)
    for parting in outcome.partings:
        print_failure(f"failed: {parting}")
    if outcome.partings:
        raise typer.Exit(1)


def _print(outcome: Outcome) -> None:
    for file, names in outcome.weights.items():
        stdout.print(f"{file}: {'integer weights equal' if not names else f'{len(names)} weights differ'}")
    for comparison in outcome.comparisons:
        stdout.print(_table(comparison))
        stdout.print(f"{comparison.to}: {_in_the_end(comparison, outcome.images)}", soft_wrap=True)


def _in_the_end(comparison: Comparison, images: int) -> str:
    report = comparison.report
    if report.agreement is None:
        return f"the outputs differ by at most {report.largest_output_difference:.2g}"
    return f"{100 * report.agreement:.2f} % of {images} images get the same class"


def _table(comparison: Comparison) -> Table:
    kind = "inside" if comparison.report.as_written else "behind"
    table = Table("stage", box=SIMPLE_HEAD, title=comparison.to, title_justify="left", padding=(0, 1, 0, 0))
    for name in ("largest difference", "differing %", f"integers {kind}: steps", "flipped %", "added up %"):
        table.add_column(name, justify="right")
    for stage in comparison.report.stages:
        table.add_row(*_cells(stage))
    return table


def _cells(stage: StageParity) -> tuple[str, ...]:
    flips = stage.flips
    return (
        stage.name,
        f"{stage.largest_difference:.2g}",
        f"{100 * stage.differing_share:.3g}",
        "" if flips is None else str(flips.largest_step),
        "" if flips is None else f"{100 * flips.flipped:.2g}",
        f"{100 * stage.accumulated_share:.2g}",
    )
