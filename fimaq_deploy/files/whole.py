"""Whole files or none: the one way in which this package writes.

A file is written beside its place, flushed to the disk and renamed, so that whoever looks finds what was there before
or all of what is there now, whatever stops the program. What is no regular file (a device, a pipe, `/dev/stdout`) is
written into and stays what it is; a symbolic link stays and its target is written.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import BinaryIO
from uuid import uuid4

from fimaq_deploy.errors import UserError, shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Open files by number. They are written through a copy of the number: opening the name again would start at byte 0.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_LINKS = 40  # that one name may lead through, as in Linux
_BESIDE = ".partial"


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file as a whole. Its folder is made if absent.

    Raises:
        UserError: the file cannot be written; what was there before is still there.
    """
    with written_whole(path) as beside:
        beside.write_bytes(data)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; what is there when the block ends without an error takes the place of `path`.

    Raises:
        UserError: the file cannot be written, also where the block failed to; what was there before is still there.
    """
    try:
        with _place(_followed(path)) as beside:
            yield beside
    except OSError as error:
        raise UserError(f"cannot write {shown(str(path))}: {_reason(error)}") from error
    except Exception as error:
        if isinstance(error, UserError) or not disk_is_full(error):
            raise
        raise UserError(f"cannot write {shown(str(path))}: {_NO_SPACE}") from error


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends without an error it stands at `place`, where nothing is yet.

    Raises:
        UserError: it cannot be written. Nothing is left of it then, as after any error of the block.
    """
    try:
        make_folder(place.absolute().parent)
        beside = Path(mkdtemp(prefix=".folder-", suffix=_BESIDE, dir=place.absolute().parent))
    except OSError as error:
        raise UserError(f"cannot write {shown(str(place))}: {_reason(error)}") from error
    try:
        yield beside
        beside.chmod(0o755)
        if os.path.lexists(place):
            raise UserError(f"{shown(str(place))} exists: name another place, or remove it")
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    flush_folder(place.absolute().parent)


def disk_is_full(error: BaseException | None) -> bool:
    """Also where a library wraps the system's error in one of its own, or this package did."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if not isinstance(error, UserError) and any(os.strerror(code) in str(error) for code in _FULL):
            return True
        error = error.__cause__
    return False


def is_file(path: Path) -> bool:
    """Whether a regular file is there. `Path.is_file` raises for names that are too long to be one."""
    return os.path.isfile(path)  # noqa: PTH113


def make_folder(folder: Path) -> None:
    """A folder and whatever is missing above it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except RecursionError:  # one call a level
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)) from None


def reserve(path: Path, size_bytes: int) -> None:
    """Take the space of a file now: a disk that fills up under a mapped file kills the process.

    Raises:
        OSError: there is not enough of it.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate") and size_bytes:
            os.posix_fallocate(file.fileno(), 0, size_bytes)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power, where the system can."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _followed(path: Path) -> Path:
    """Where a name leads through links; names of open files stay, as they lead nowhere that can be opened again."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "")
    at = path.absolute()
    for _ in range(_LINKS):
        if _number_of(at) is not None or not at.is_symlink():
            return at
        at = at.parent / at.readlink()
    raise OSError(errno.ELOOP, "")


def _number_of(path: Path) -> int | None:
    found = _DESCRIPTOR.fullmatch(str(path))
    return int(found.group(1)) if found else None


@contextmanager
def _place(path: Path) -> Iterator[Path]:
    """Where to write what goes to `path`, by what is there now."""
    number = _number_of(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and number is None:
        _require_writable(path, mode)
    if number is not None or not (mode is None or stat.S_ISREG(mode)):
        kept = _poured(path, number)
    else:
        kept = _replaced(path, mode)
    with kept as beside:
        yield beside


def _require_writable(path: Path, mode: int) -> None:
    """Renaming would get around a file's own permissions, and a block device is no place for a file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "")


@contextmanager
def _replaced(path: Path, mode: int | None) -> Iterator[Path]:
    make_folder(path.parent)
    beside = path.with_name(f".{uuid4().hex}{_BESIDE}")
    try:
        # Made as any new file is, with the permissions that the user's umask gives, whoever then writes to it.
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        allowed = stat.S_IMODE(beside.stat().st_mode if mode is None else mode)
        yield beside
        _flush(beside)
        if stat.S_IMODE(beside.stat().st_mode) != allowed:
            beside.chmod(allowed)
        beside.replace(path)
        flush_folder(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def _poured(path: Path, number: int | None) -> Iterator[Path]:
    """What is no regular file gets its bytes when all of them are there."""
    with TemporaryDirectory(prefix="fimaq-") as folder:
        beside = Path(folder) / "whole"
        yield beside
        sys.stdout.flush()
        sys.stderr.flush()
        with beside.open("rb") as source, _opened(path, number) as sink:
            shutil.copyfileobj(source, sink)


def _opened(path: Path, number: int | None) -> BinaryIO:
    return path.open("wb") if number is None else os.fdopen(os.dup(number), "wb")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_SPACE = "no space left; free some or name another place"
_REASONS = {
    errno.EISDIR: "it is a folder; name a file",
    errno.EINVAL: "it is no place for a file; name another",
    errno.ENAMETOOLONG: "the name is too long; name another file",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "permission denied; name another place"),
    **dict.fromkeys(_FULL, _NO_SPACE),
}


def _reason(error: OSError) -> str:
    code = error.errno or 0
    return _REASONS.get(code) or f"{os.strerror(code).lower() if code else shown(str(error))}; name another place"
