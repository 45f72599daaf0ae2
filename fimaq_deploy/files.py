"""Whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

from fimaq_deploy.errors import UserError


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write beside `path` and rename, so that an interrupted run leaves no half file. The folder is made if absent.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise UserError(f"cannot write {path}: {reason}; free some space or name another place") from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
