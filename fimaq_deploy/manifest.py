"""What a build folder says about itself: size and SHA-256 of each file, and the facts of the build.

Whoever reads a file of a build asks `check_file` first: a file that is not what the build wrote is refused. A file that
lies in no build folder is nobody's promise and passes.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole

MANIFEST = "manifest.json"
SCHEMA = "fimaq-deploy/manifest/1"

_CHUNK = 2**20


def write_manifest(folder: Path, facts: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """List every file of the folder with its size and SHA-256, beside the facts of the build.

    without: names of files that are no part of the build.
    """
    files = {
        path.name: {"sha256": sha256(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (MANIFEST, *without)
    }
    manifest = {"schema": SCHEMA, **facts, "files": files}
    write_whole(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a build folder; None where there is none.

    Raises:
        UserError: it cannot be read, or is of another kind or version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())[:100]}): build the folder again"
        ) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not _lists_files(found.get("files")):
        raise UserError(f"{path} is no manifest of this version of fimaq-deploy: expected schema {SCHEMA}")
    return found


def check_file(path: Path) -> None:
    """Refuse a file of a build folder that is not what the build wrote.

    Raises:
        UserError: its size or SHA-256 is another one than its folder's manifest says.
    """
    manifest = read_manifest(path.parent)
    promised = manifest["files"].get(path.name) if manifest else None
    if promised is None or not path.is_file():
        return
    size = path.stat().st_size
    if size != promised["size_bytes"]:
        raise UserError(f"{path} has {size} bytes, its build wrote {promised['size_bytes']}: {_MEND}")
    if sha256(path) != promised["sha256"]:
        raise UserError(f"{path} is not what its build wrote (its SHA-256 differs from {MANIFEST}): {_MEND}")


_MEND = "copy the folder again, build it again, or move the file elsewhere to read it all the same"


def origin(manifest: Mapping[str, Any]) -> tuple[str, str, int, list[str]]:
    """Of a build: the model's name, its weights, the seed and the targets. 0.1.0 named weights in the command alone."""
    words = shlex.split(manifest.get("command", ""))
    command = dict(pairwise(words))
    weights = manifest.get("weights") or command.get("--weights", "pretrained")
    return manifest["model"], weights, manifest["seed"], list(manifest["targets"])


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _lists_files(files: object) -> bool:
    return isinstance(files, dict) and all(
        isinstance(name, str) and isinstance(one, dict) and {"sha256", "size_bytes"} <= one.keys()
        for name, one in files.items()
    )
