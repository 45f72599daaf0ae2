"""`--json FILE|-`: a command's result for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.outputs import refuse_to_replace
from fimaq_deploy.files import write_whole

JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write the result as JSON; - prints it instead of the table."),
]


def write_document(destination: str | None, document: Mapping[str, Any]) -> bool:
    """Write a result where `--json` says, nowhere for None. Returns whether standard output is taken by it.

    Raises:
        UserError: the file cannot be written.
    """
    if destination is None:
        return False
    text = json.dumps(document, indent=2) + "\n"
    if destination == "-":
        stdout.out(text, end="", highlight=False)
        return True
    refuse_to_replace(Path(destination), "--json")
    write_whole(Path(destination), text.encode())
    return False
