"""The command line: each command parses, calls one function of the library and prints.

A user's mistake is one red line and exit code 2; a build that misses its gate is exit code 1; anything else is our bug
and keeps its traceback. torch and its friends are imported inside the commands, so `--help` is quick.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fimaq_deploy import __version__
from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from rich.status import Status

    from fimaq_deploy.build import BuildResult

app = typer.Typer(
    help="Quantize ViT, DeiT and Swin on the grid the engine executes, and check every step against PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console(highlight=False, markup=False)
_err = Console(stderr=True, highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command. Always ends in SystemExit."""
    try:
        app(args=arguments)
    except UserError as error:
        _err.print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        _out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def build(
    model: Annotated[str, typer.Option(help="A shipped or timm model, or package.module:factory.")],
    weights: Annotated[str, typer.Option(help="pretrained, random, or a .safetensors or .pth file.")] = "pretrained",
    images: Annotated[Path | None, typer.Option(help="Folder of calibration images.")] = None,
    eval_images: Annotated[Path | None, typer.Option(help="Folder with one sub-folder of images per class.")] = None,
    recipe: Annotated[str, typer.Option(help="A preset (see `recipes`) or a YAML file.")] = "w8a8",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A recipe field, as in reconstruction.iterations=200. Repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Where it will run (see `doctor`). Repeatable; default: whatever works here."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Artifact folder; default: build/MODEL.")] = None,
    device: Annotated[str | None, typer.Option(help="Where PyTorch learns, such as cpu or cuda.")] = None,
    seed: Annotated[int, typer.Option(help="Of the learning and of random weights.")] = 0,
    max_drop: Annotated[float | None, typer.Option(help="Fail when more points of top-1 are lost than this.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted build.")] = False,
) -> None:
    """Quantize, export, compile, evaluate and report, into one folder."""
    from fimaq_deploy.build import build as run_build
    from fimaq_deploy.recipe import Recipe

    with _StepLine() as progress:
        result = run_build(
            model,
            weights=weights,
            images=images,
            eval_images=eval_images,
            recipe=Recipe.load(recipe).with_settings(settings or ()),
            targets=target,
            out=out,
            device=device,
            seed=seed,
            max_drop=max_drop,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    _print_result(result)
    if result.failures:
        raise typer.Exit(1)


@app.command()
def recipes() -> None:
    """List the recipes that ship with the package."""
    from fimaq_deploy.recipe import Recipe

    table = Table("recipe", "weights", "activations", "iterations a block", box=None)
    for name in Recipe.presets():
        recipe = Recipe.load(name)
        block = f", blocks of {recipe.weights.block_size}" if recipe.weights.block_size else ""
        table.add_row(
            name,
            f"{recipe.weights.bits} bits{block}",
            f"{recipe.activations.bits} bits",
            str(recipe.reconstruction.iterations),
        )
    _out.print(table)


@app.command()
def doctor() -> None:
    """Say what can be built and run on this machine, and why not."""
    from fimaq_deploy.engines import availability
    from fimaq_deploy.report import describe_environment
    from fimaq_deploy.target import TARGETS

    machine = describe_environment()
    _out.print(f"{machine.cpu}, {machine.cores} cores; GPU: {machine.gpu or 'none'}; Python {machine.python}")
    _out.print(", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    for name in TARGETS:
        _out.print(f"{name:<18}{_ability(*availability(name))}", soft_wrap=True)


def _ability(not_built: str | None, not_run: str | None) -> str:
    if not_built:
        return f"no: {not_built}"
    return f"builds, does not run: {not_run}" if not_run else "builds and runs"


def _print_result(result: BuildResult) -> None:
    from fimaq_deploy.report.table import HEADER, cells, not_run_text
    from fimaq_deploy.report.verdict import verdict

    report = result.report
    table = Table(*HEADER, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "right" if column.header else "left"
    for row in report.rows:
        table.add_row(*cells(row))
    _out.print(table)
    for row in report.rows:
        if row.not_run is not None:
            _out.print(f"{row.title}: {not_run_text(row)}", soft_wrap=True)
    _out.print(verdict(report), soft_wrap=True)
    _out.print(f"Wrote {result.out}", soft_wrap=True)
    for failure in result.failures:
        _err.print(Text(f"failed: {failure}", style="bold red"), soft_wrap=True)


class _StepLine:
    """Prints a line for each finished step of a build, and on a terminal the step that is running."""

    def __init__(self) -> None:
        self._step, self._started = "", 0.0
        self._status: Status = _err.status("")

    def __enter__(self) -> _StepLine:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._status.stop()
        if kind is None:
            self._finish()

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        if step != self._step:
            self._finish()
            self._step, self._started = step, time.perf_counter()
        self._status.update(f"{step} {done}/{total} {detail}" if total else step)

    def _finish(self) -> None:
        if self._step:
            _err.print(f"{self._step:<10}{time.perf_counter() - self._started:8.1f} s")
