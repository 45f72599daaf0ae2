"""What a command writes takes no place of what a build wrote, nor of what the command reads itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.manifest import MANIFEST, read_manifest

OPTIONS = ("json", "html", "markdown", "junit")  # files that a command writes, by its parameters


def check_outputs(values: Mapping[str, Any]) -> None:
    """values: of a command's parameters by name.

    Raises:
        UserError: a file to write is one of a build, or one to read.
    """
    read = [Path(one) for name, given in values.items() if name not in OPTIONS for one in _paths(given)]
    for name in OPTIONS:
        for path in _paths(values.get(name)):
            if path != "-":
                refuse_to_replace(Path(path), f"--{name}", read)


def refuse_to_replace(path: Path, option: str, read: Iterable[Path] = ()) -> None:
    """The same of one file; `option` named it.

    Raises:
        UserError: it is a file of a build, or one of `read`.
    """
    place = Path(os.path.realpath(path))
    if place.name in _promised(place.parent):
        raise UserError(f"{option} {shown(str(path))} is a file of a build: name another place")
    if any(is_file(one) and os.path.realpath(one) == str(place) for one in read):
        raise UserError(f"{option} {shown(str(path))} is read by the same command: name another place")


def _promised(folder: Path) -> set[str]:
    try:
        manifest = read_manifest(folder)
    except (UserError, OSError):  # what cannot be read promises nothing
        return set()
    return {MANIFEST, *manifest["files"]} if manifest else set()


def _paths(given: Any) -> Iterator[str]:
    for one in given if isinstance(given, (list, tuple)) else (given,):
        if isinstance(one, (str, Path)):
            yield str(one)
