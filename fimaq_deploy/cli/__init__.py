"""The command line: each command parses, calls one function of the library and prints.

A user's mistake is one red line and exit code 2; a gate that is missed is exit code 1; Ctrl-C is one line that says how
to go on and exit code 130 (SIGTERM: 143); anything else is our bug and keeps its traceback. torch and its friends are
imported inside the commands, so `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fimaq_deploy.cli.audit import audit
from fimaq_deploy.cli.bench import bench
from fimaq_deploy.cli.build import build
from fimaq_deploy.cli.command import Command, Interrupted, line_of, shortened, way_on
from fimaq_deploy.cli.compare import compare
from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.doctor import doctor
from fimaq_deploy.cli.history import history
from fimaq_deploy.cli.lint import lint
from fimaq_deploy.cli.package import package
from fimaq_deploy.cli.parity import parity
from fimaq_deploy.cli.predict import predict
from fimaq_deploy.cli.recipes import recipes
from fimaq_deploy.cli.serve import serve
from fimaq_deploy.cli.stopping import StopRequest, stop_request
from fimaq_deploy.cli.sweep import sweep
from fimaq_deploy.cli.unpack import unpack
from fimaq_deploy.cli.verify import verify
from fimaq_deploy.version import __version__

app = typer.Typer(
    help="Quantize ViT, DeiT and Swin on the grid the engine executes, and check every step against PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    build,
    audit,
    bench,
    compare,
    history,
    sweep,
    lint,
    parity,
    predict,
    verify,
    package,
    unpack,
    serve,
    recipes,
    doctor,
):
    app.command(cls=Command)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command. Ends in SystemExit but for a fault of our own."""
    with stop_request() as request:
        try:
            code = app(args=arguments, prog_name="fimaq-deploy", standalone_mode=False)
            if code and request.number is not None:  # the parser was interrupted, and ends without a word
                code = _report(KeyboardInterrupt(), request)
        except SystemExit:
            raise
        except BaseException as error:
            code = _report(error, request)
        sys.exit(code or 0)


def _report(error: BaseException, request: StopRequest) -> int:
    """Print why a command ended early and return its exit code. Whatever comes of a request to end is no fault."""
    if request.number is not None or isinstance(error, (KeyboardInterrupt, Interrupted)):
        print_failure(f"stopped: {way_on(error)}")
        return request.exit_code
    line = line_of(error)
    if line is None:
        raise error
    if line:
        print_failure(f"error: {shortened(line)}")
    return 2


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
