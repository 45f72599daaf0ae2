"""What a build folder says about itself: size and SHA-256 of each file, and the facts of the build.

Whoever reads a file of a build asks `check_file` first: a file that is not what the build wrote is refused. A file that
lies in no build folder is nobody's promise and passes. Not covered: somebody who changes the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files import write_whole
from fimaq_deploy.files.folders import settle_folder
from fimaq_deploy.files.whole import is_file

MANIFEST = "manifest.json"
SCHEMA = "fimaq-deploy/manifest/1"

_OURS = "fimaq-deploy"  # stands in every manifest twice; other programs have a `manifest.json` too
_OWN = "manifest_sha256"
_MEND = "copy the folder again, build it again, or move the file elsewhere to read it all the same"
_CHUNK = 2**20
_TICK_NS = 2 * 10**9
_HASHED: dict[tuple[int, ...], str] = {}


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
    text = json.dumps({**manifest, _OWN: _digest(manifest)}, indent=2)
    write_whole(folder / MANIFEST, f"{text}\n".encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a build folder; None where there is none, or one of something else.

    Raises:
        UserError: it cannot be read, or is of another version.
    """
    settle_folder(folder)
    path = folder / MANIFEST
    if not is_file(path):
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if _OURS in text else None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({shown(str(error))}): {_MEND}") from None
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not _lists_files(found.get("files")):
        raise UserError(f"{path} is no manifest of this version of fimaq-deploy: expected schema {SCHEMA}")
    if found.pop(_OWN, None) != _digest(found) and not _is_of_first_version(found):
        raise UserError(f"{path} is not what its build wrote (its own SHA-256 differs): {_MEND}")
    return found


def check_file(path: Path) -> None:
    """Refuse a file of a build folder that is not what the build wrote, and one whose sidecar (`NAME.data`) is not.

    Raises:
        UserError: its size or SHA-256 is another one than its folder's manifest says.
    """
    settle_folder(path.parent)
    for place in dict.fromkeys((path, _resolved(path))):  # a link to a file of a build is a file of that build
        manifest = read_manifest(place.parent)
        promised = manifest["files"] if manifest else {}
        if place.name in promised and is_file(place):
            for name in promised.keys() & {place.name, f"{place.name}.data"}:
                _check(place.with_name(name), promised[name])


def check_folder(folder: Path) -> None:
    """`check_file` of everything that the build in a folder wrote.

    Raises:
        UserError: a file is missing or another one, or the folder holds no build.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is not the folder of a build: it holds no {MANIFEST}")
    for problem in faults(folder, manifest).values():
        raise UserError(problem)


def faults(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """By name, the files of a folder that are not what its manifest says, with a line about each."""
    told = {name: _fault(folder / name, promised) for name, promised in manifest["files"].items()}
    return {name: problem for name, problem in told.items() if problem is not None}


def _fault(path: Path, promised: Mapping[str, Any]) -> str | None:
    try:
        _check(path, promised)
    except UserError as error:
        return str(error)
    return None


def _check(path: Path, promised: Mapping[str, Any]) -> None:
    try:
        size, digest = path.stat().st_size, None
        if size == promised["size_bytes"]:
            digest = sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({os.strerror(error.errno or 0).lower()}): {_MEND}") from None
    if size != promised["size_bytes"]:
        raise UserError(f"{path} has {size} bytes, its build wrote {promised['size_bytes']}: {_MEND}")
    if digest != promised["sha256"]:
        raise UserError(f"{path} is not what its build wrote (its SHA-256 differs from {MANIFEST}): {_MEND}")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links, which whoever opens it will report
        return path


def origin(manifest: Mapping[str, Any]) -> tuple[str, str, int, list[str]]:
    """Of a build: the model's name, its weights, the seed and the targets. 0.1.0 named weights in the command alone.

    Raises:
        UserError: the manifest does not say.
    """
    try:
        command = dict(pairwise(shlex.split(manifest.get("command", ""))))
        weights = manifest.get("weights") or command.get("--weights", "pretrained")
        return str(manifest["model"]), str(weights), int(manifest["seed"]), [str(name) for name in manifest["targets"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the {MANIFEST} of the build does not say what was built ({shown(repr(error))})") from None


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file. One that has not changed since is not read again in this process."""
    found = path.stat()
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key in _HASHED:
        return _HASHED[key]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    # A file that was touched just now may change again within one tick of the file system's clock.
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _TICK_NS:
        _HASHED[key] = digest.hexdigest()
    return digest.hexdigest()


def _lists_files(files: object) -> bool:
    return isinstance(files, dict) and all(
        _is_plain(name) and isinstance(one, dict) and {"sha256", "size_bytes"} <= one.keys()
        for name, one in files.items()
    )


def _is_of_first_version(manifest: Mapping[str, Any]) -> bool:
    """Whether 0.1 wrote it, which knew no digest of its own. Where one stands, under whatever name, it did not."""
    versions = manifest.get("versions")
    return isinstance(versions, dict) and str(versions.get("fimaq-deploy", "")).startswith("0.1.")


def _is_plain(name: object) -> bool:
    """Whether a name is that of a file in the folder itself, and leads nowhere else."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0"} & {*name}


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of a manifest without its own: the SHA-256 of its JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
