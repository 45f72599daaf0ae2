"""Whole folders or none: made beside their place, moved there at the end, and put right after whatever cut that off.

A folder for `build/x` is made in `build/x.partial`, which holds a mark as long as it is under construction. Putting it
in its place takes two renames where an older folder stands there: the older one goes *into* the new one, and the new
one goes to its place. So nothing but folders of our own is ever touched, and a program that is killed between the two
leaves the older one where `settle_folder` finds it and puts it back.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.lock import locked
from fimaq_deploy.files.whole import flush_folder

MARK = "request.json"
REPLACED = "replaced"
LONGEST_NAME = 240  # of a folder in bytes, so that what stands beside it has a name of 255 at most


def real_place(place: Path) -> Path:
    """Where a folder that is to be made or replaced as a whole really stands: its links followed, from the root.

    Raises:
        UserError: it cannot be replaced as a whole, wherever that is tried.
    """
    name = shown(str(place))
    if "\0" in str(place):
        raise UserError(f"{name} is no name of a folder: name another")
    real = Path(os.path.realpath(place))
    if len(os.fsencode(real.name)) > LONGEST_NAME:
        raise UserError(f"{name}: the name is too long: name a folder of at most {LONGEST_NAME} characters")
    if os.path.islink(real):  # noqa: PTH114  # which answers where the name is too long to ask
        raise UserError(f"{name} is a link that leads back to itself: name another folder")
    if os.path.ismount(real):
        raise UserError(f"{name} is a mount point, which nothing can take the place of: name a folder inside it")
    with suppress(FileNotFoundError):  # the current folder may be gone
        if real in (here := Path.cwd(), *here.parents):
            raise UserError(f"{name} is or holds the folder that this runs in: name a folder inside it")
    return real


def under_construction(place: Path) -> Path:
    """Where the folder that is to stand at `place` is made."""
    return place.with_name(f"{place.name}.partial")


def lock_of(place: Path) -> Path:
    """The lock file of whoever makes the folder that is to stand at `place`."""
    return place.with_name(f".{place.name}.lock")


# With the lock held


def publish_folder(place: Path) -> None:
    """Move the finished folder into its place. At any instant the old or the new one is there or can be put back.

    Raises:
        OSError: it cannot be moved; what stood there before stands there again.
    """
    folder = under_construction(place)
    try:
        if place.exists():
            place.rename(folder / REPLACED)
        folder.rename(place)
    except BaseException:
        put_back(place)
        raise
    flush_folder(place.parent)


def put_back(place: Path) -> None:
    """What stood at `place` before a publication that was cut off stands there again."""
    aside = _aside(place)
    if aside is not None and not place.exists():
        aside.rename(place)


def tidy_folder(place: Path, *more: str) -> None:
    """Remove from a published folder what only its making needed: what it replaced, `more`, and last its mark."""
    if (place / MARK).is_file():
        for name in (REPLACED, *more):
            shutil.rmtree(place / name, ignore_errors=True)
        (place / MARK).unlink(missing_ok=True)


def empty_construction(place: Path, *kept: str) -> None:
    """Remove from a folder under construction everything but its mark and what is `kept`."""
    for path in under_construction(place).iterdir():
        if path.name in (MARK, *kept):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_construction(place: Path) -> None:
    """Remove a folder under construction. Its mark goes last, so that what may be left is still known as one."""
    empty_construction(place)
    folder = under_construction(place)
    (folder / MARK).unlink(missing_ok=True)
    folder.rmdir()


# Without it


def settle_folder(place: Path) -> None:
    """Before a folder is read: undo a publication that was cut off in the middle, unless it is still under way."""
    with suppress(UserError, OSError):
        if not place.exists() and _aside(place) is not None:
            with locked(lock_of(place), ""):
                put_back(place)


def _aside(place: Path) -> Path | None:
    """What stood at `place`, where a publication has it aside."""
    folder = under_construction(place)
    return folder / REPLACED if (folder / MARK).is_file() and (folder / REPLACED).is_dir() else None
