"""The command line: each command parses, calls one function of the library and prints.

A user's mistake is one red line and exit code 2; a gate that is missed is exit code 1; anything else is our bug and
keeps its traceback. torch and its friends are imported inside the commands, so `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fimaq_deploy.cli.audit import audit
from fimaq_deploy.cli.bench import bench
from fimaq_deploy.cli.build import build
from fimaq_deploy.cli.compare import compare
from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.doctor import doctor
from fimaq_deploy.cli.lint import lint
from fimaq_deploy.cli.parity import parity
from fimaq_deploy.cli.recipes import recipes
from fimaq_deploy.cli.sweep import sweep
from fimaq_deploy.errors import UserError
from fimaq_deploy.version import __version__

app = typer.Typer(
    help="Quantize ViT, DeiT and Swin on the grid the engine executes, and check every step against PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (build, audit, bench, compare, sweep, lint, parity, recipes, doctor):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command. Always ends in SystemExit."""
    try:
        app(args=arguments)
    except UserError as error:
        print_failure(f"error: {error}")
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        stdout.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...
