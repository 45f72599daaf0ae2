"""`fimaq-deploy predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import stderr, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.runtime.answers import Answer, Answers


def predict(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A build, or an exported ONNX file.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    target: Annotated[str | None, typer.Option(help="What runs it; default: the best that runs here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of a CPU; default: the runtime's choice.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to show.")] = 3,
    score: Annotated[float | None, typer.Option(help="The least of an object that a detector finds: 0.5.")] = None,
    json: JsonOption = None,
) -> None:
    """Say what a build makes of images. Needs no torch."""
    from fimaq_deploy.runtime.answers import predict as run_predict

    found = run_predict(artifact, images, target=target, threads=threads, top=top, score=score)
    if not write_document(json, found.document()):
        stderr.print(found.choice.sentence, soft_wrap=True)
        stdout.print(_table(found))


def _table(found: Answers) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("answer", overflow="fold")
    for answer in found.answers:
        table.add_row(str(answer.image), _text(answer))
    return table


def _text(answer: Answer) -> str:
    if answer.objects is not None:
        told = (
            f"{one.name} {one.score:.2f} [{', '.join(f'{side:.0f}' for side in one.box)}]" for one in answer.objects
        )
        return ", ".join(told) or "nothing"
    if answer.shares is not None:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in answer.shares.items())
    if answer.prediction is None:
        return ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in answer.outputs.items())
    return ", ".join(f"{name} {100 * probability:.1f} %" for _, name, probability in answer.prediction.top)
