"""The artifact folder: written beside its place, moved there when it is whole, with a manifest of what it holds.

A build works in `<out>.partial`. When it ends well, that folder becomes `<out>`; when it is interrupted, `<out>` is as
it was before, and the partial folder stays only where it holds a state to resume from.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import MANIFEST

STATE = "resume"
REQUEST_FILE = "request.json"
_REPLACED = "replaced"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(out: Path, request: Mapping[str, Any], *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """A working folder that becomes `out` when the block ends without an error.

    request: what is being built; a partial folder is resumed only for the same request.

    Raises:
        UserError: `out` exists and may not be replaced, cannot be written, or the disk is full.
    """
    check_out(out, overwrite=overwrite)
    folder = out.absolute().with_name(f"{out.absolute().name}.partial")
    _open_partial(folder, out, request, resume)
    try:
        yield folder
        _publish(folder, out)
    except BaseException as error:
        _discard_unless_resumable(folder)
        if _is_disk_full(error):
            raise UserError(f"{out}: no space left to write it; free some and build again with --resume") from error
        raise


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that must not be replaced.

    Raises:
        UserError: `out` exists without --overwrite, or is something else than an earlier build.
    """
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UserError(f"{out} exists and is not an earlier build: name another folder with --out")
    if any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} exists: name another folder with --out, or replace it with --overwrite")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what cannot fit.

    Raises:
        UserError: the disk has less free space than the artifacts will take.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"{folder.parent}: {free / 1e6:.0f} MB are free, but this build writes about {needed_bytes / 1e6:.0f} MB; "
            "free some space or name another disk with --out"
        )


def _open_partial(folder: Path, out: Path, request: Mapping[str, Any], resume: bool) -> None:
    wanted = json.dumps(request, indent=2, sort_keys=True)
    found = folder / REQUEST_FILE
    try:
        if folder.exists() and not found.is_file():
            raise UserError(f"{folder} exists and is not an unfinished build: remove it or name another --out")
        if resume and found.is_file() and found.read_text(encoding="utf-8") != wanted:
            raise UserError(
                f"{folder} was started with other settings and cannot be resumed: build without --resume to start over"
            )
        if folder.exists() and not resume:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        found.write_text(wanted, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {os.strerror(error.errno or 0).lower()}; name another folder") from error


def _publish(folder: Path, out: Path) -> None:
    """Put the finished folder in its place. An earlier build is moved aside first and removed last."""
    shutil.rmtree(folder / STATE, ignore_errors=True)
    if out.exists():
        out.rename(folder / _REPLACED)
    folder.rename(out)
    (out / REQUEST_FILE).unlink()
    shutil.rmtree(out / _REPLACED, ignore_errors=True)


def _discard_unless_resumable(folder: Path) -> None:
    if (folder / REQUEST_FILE).is_file() and not any((folder / STATE).glob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def _is_disk_full(error: BaseException) -> bool:
    """Also where a library wraps the system's error in one of its own."""
    if isinstance(error, UserError):
        return False
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(os.strerror(code) in str(error) for code in _FULL)
