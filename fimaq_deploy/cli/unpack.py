"""`fimaq-deploy unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A tar that `package --format tar` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The folder; default: FILE without .tar. It must not exist.")] = None,
    json: JsonOption = None,
) -> None:
    """Unpack a build from its tar: whole and with every file checked, or nothing. Needs no torch."""
    from fimaq_deploy.packaging.unpacking import unpack as unpack_tar

    done = unpack_tar(file, out=out)
    if not write_document(json, done.document()):
        stdout.print(f"Wrote {done.out}, {done.files} files", soft_wrap=True)
