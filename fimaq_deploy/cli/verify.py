"""`fimaq-deploy verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document
from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from fimaq_deploy.runtime.verification import Replayed, Verification


def verify(
    artifact: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a build.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="What to run. Repeatable; default: all of the build that run here."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of a CPU; default: the runtime's choice.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="A public key in PEM: the build has to be signed by its owner.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Check that a build is what was built, and that this machine computes with it what was measured. Needs no torch.

    Exit code 1 where it is not; where an engine computes something else and torch is here, with the block.
    """
    from fimaq_deploy.runtime.verification import verify_artifact

    found = verify_artifact(artifact, targets=target, threads=threads, key=key)
    if parted := [one.target for one in found.replayed if one.problems]:
        found = _with_blocks(found, parted)
    if not write_document(json, found.document()):
        _print(found)
    for problem in found.problems:
        print_failure(f"failed: {problem}")
    if not found.good:
        raise typer.Exit(1)


def _with_blocks(found: Verification, targets: list[str]) -> Verification:
    """The first block where each of these targets leaves the quantized model, on the images that the build kept."""
    from fimaq_deploy.runtime.replay import REPLAY, Replay

    try:
        from fimaq_deploy.verify.block_parity import parity

        images = Replay.load(found.artifact / REPLAY).images
        partings = parity(found.artifact, images=images, count=len(images), targets=targets).partings
    except (UserError, ModuleNotFoundError) as error:
        return replace(found, notes=(*found.notes, f"the block where it parts cannot be named here: {error}"))
    if not partings:
        none = "block by block nothing parts by more than parity allows: the difference adds up over the blocks"
        return replace(found, notes=(*found.notes, none))
    return replace(found, problems=(*found.problems, *(f"parity: {line}" for line in partings)))


def _print(found: Verification) -> None:
    if found.replayed:
        stdout.print(_table(found))
    for note in found.notes:
        stdout.print(note, soft_wrap=True)
    told = "yes: it is what was built" if found.good else f"no: {len(found.problems)} things differ"
    stdout.print(f"{found.artifact}, {found.files} files: {told}", soft_wrap=True)


def _table(found: Verification) -> Table:
    table = Table("runs", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("same class", "distance", "allowed", "ms here", "ms in the build"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.replayed:
        table.add_row(f"{one.file} on {one.target}", *_cells(one))
    return table


def _cells(one: Replayed) -> tuple[str, ...]:
    same = "" if one.same is None else f"{one.same} of {one.images}"
    times = ("" if ms is None else f"{ms:.3g}" for ms in (one.latency_ms, one.built_ms))
    return (same, f"{one.distance:.2g}", f"{one.allowed:.2g}", *times)
