"""Locks between processes that a killed process does not leave behind.

The lock is the system's own on an open file, so it ends with its process, however that ends. Not covered: file systems
that know no locks, where everybody gets one.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fimaq_deploy.errors import UserError

_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK)
_LOCKED_BYTE = 2**30  # on Windows, where a locked byte cannot be read


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`, which goes away with the block.

    refusal: what is said where somebody has it; `{owner}` in it becomes "process 123".

    Raises:
        UserError: another process, or another thread of this one, has it.
        OSError: it cannot be made.
    """
    descriptor = _taken(path, refusal)
    try:
        yield
    finally:
        if os.name == "posix":  # elsewhere an open file cannot be removed: it stays, and without a lock means nothing
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def _taken(path: Path, refusal: str) -> int:
    """The open file, locked. What its owner removed between our opening and locking it is no lock any more."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            if not _lock(descriptor):
                raise UserError(refusal.replace("{owner}", _owner(descriptor)))
            if _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, str(os.getpid()).encode())


def _owner(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    number = os.read(descriptor, 20)
    return f"process {int(number)}" if number.isdigit() else "another process"
