"""Which files under a folder are images, and why the others are not.

Linked folders and files are followed; a folder that was read already is not read again, so a loop of links ends.
Whether a file is an image, its suffix says where Pillow knows it, and its first bytes where not. `.npy` files are
single images that are prepared already. What is left out is counted with its reason.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

ARRAY = ".npy"

HIDDEN = "hidden"
BROKEN = "broken links"
SEEN = "folders that were read already, through a link"
CLOSED = "that cannot be opened"
SPECIAL = "pipes or devices"
OTHER = "that Pillow does not open"

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# Formats that Pillow names but cannot decode itself: some need another program, which it would run.
_NEVER = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


@dataclass
class Listing:
    """Files in an order that does not depend on the file system, and what was left out, by reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, path: Path, reason: str) -> None:
        self.left_out.setdefault(reason, []).append(path)

    def summary(self) -> str:
        """What was left out, in words; empty where nothing was."""
        return ", ".join(_counted(reason, paths) for reason, paths in self.left_out.items())


def image_files(folder: Path, *, seen: frozenset[tuple[int, int]] = frozenset()) -> Listing:
    """Image files at any depth. seen: folders, as `identity` gives them, that are not to be read."""
    listing, identities = Listing(), {*seen, identity(folder)}
    waiting = [folder]
    while waiting:
        for path, mode in entries(waiting.pop(), listing):
            if stat.S_ISDIR(mode):
                waiting += _first_visit(path, identities, listing)
            else:
                _add_file(path, mode, listing)
    listing.files.sort(key=lambda path: path.relative_to(folder).parts)
    return listing


def identity(folder: Path) -> tuple[int, int]:
    """What a folder is, whatever links lead to it."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def open_image(file: Path | BinaryIO, *, known: bool = True) -> Image.Image:
    """The image in a file, not decoded yet. Where its suffix is not known, only of formats that begin with a mark.

    Raises:
        One of UNREADABLE: it is none.
    """
    return Image.open(file, formats=_formats(marked_only=not known))


def knows_suffix(file: Path) -> bool:
    return file.suffix.lower() in _suffixes()


def entries(folder: Path, listing: Listing) -> Iterator[tuple[Path, int]]:
    """What lies in a folder and is not hidden, sorted, with the mode of what links lead to."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names are enough)
    except OSError:
        listing.leave_out(folder, CLOSED)
        return
    for path in map(folder.joinpath, names):
        mode = _mode(path, listing)
        if mode is not None:
            yield path, mode


def _mode(path: Path, listing: Listing) -> int | None:
    if path.name.startswith("."):
        listing.leave_out(path, HIDDEN)
        return None
    try:
        return path.stat().st_mode
    except OSError:
        listing.leave_out(path, BROKEN if path.is_symlink() else CLOSED)
        return None


def _first_visit(folder: Path, identities: set[tuple[int, int]], listing: Listing) -> list[Path]:
    found = identity(folder)
    if found in identities:
        listing.leave_out(folder, SEEN)
        return []
    identities.add(found)
    return [folder]


def _add_file(path: Path, mode: int, listing: Listing) -> None:
    if not stat.S_ISREG(mode):
        listing.leave_out(path, SPECIAL)
    elif path.suffix.lower() == ARRAY or knows_suffix(path) or _begins_like_an_image(path):
        listing.files.append(path)
    else:
        listing.leave_out(path, OTHER)


def _begins_like_an_image(file: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            open_image(file, known=False).close()
    except Image.DecompressionBombError:
        return True  # an image all the same; reading it will say what is wrong with it
    except UNREADABLE:
        return False
    return True


@cache
def _suffixes() -> frozenset[str]:
    _register_heif()
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in Image.OPEN and name not in _NEVER)


@cache
def _formats(*, marked_only: bool) -> tuple[str, ...]:
    _suffixes()
    opened = {name: accept for name, (_, accept) in Image.OPEN.items() if name not in _NEVER}
    return tuple(name for name, accept in opened.items() if accept or not marked_only)


def _register_heif() -> None:
    """Photographs of telephones, where the plugin for them is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _counted(reason: str, paths: list[Path]) -> str:
    suffixes = (path.suffix.lower() for path in paths if reason == OTHER)
    kinds = Counter(printable(Path(suffix)) if suffix else "no suffix" for suffix in suffixes)
    named = f" ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})" if kinds else ""
    return f"{len(paths)} {reason}{named}"


def printable(path: Path) -> str:
    """The name of a file on one line, also where it is not valid in the file system's encoding."""
    name = os.fsencode(path).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
