"""A tar of `package --format tar` back into the folder of a build: whole and checked, or nothing at all.

Such a tar is plain files in one folder, so everything else is refused before anything is written: links, devices,
other folders, names that lead elsewhere or that some file systems take for the same, contents that run past the end of
the file, compressed ones. What is unpacked lies beside its place until every file is what the manifest says.

Headers are read by `tarfile.TarInfo.frombuf`, one block at a time; the rest of tarfile, whose guards depend on the
patch release of Python, is not used. No member can be larger than the tar: nothing in it is compressed or sparse.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file, whole_folder
from fimaq_deploy.manifest import MANIFEST, check_folder

_BLOCK, _CHUNK = tarfile.BLOCKSIZE, 2**20
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,19}")
_LONGEST_NAME = 255  # of one file, in bytes, on every file system that is in use
_MOST_FILES = 10_000
_LARGEST_MANIFEST = _LARGEST_HEADER = 2**24
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")  # how such files begin
_READ = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
# Extended headers that change nothing but what nobody reads here.
_IDLE = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}
_MEND = "expected a tar of `fimaq-deploy package --format tar`; copy it again"


@dataclass(frozen=True)
class Unpacked:
    """out: the folder of the build. files: in it."""

    out: Path
    files: int

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {"schema": "fimaq-deploy/unpack/1", "out": str(self.out), "files": self.files}


@dataclass(frozen=True)
class _Member:
    name: str  # without the folder
    start: int
    size: int


def unpack(file: str | Path, *, out: str | Path | None = None) -> Unpacked:
    """Unpack a build and check every file of it.

    file: a tar that `package` wrote. out: the folder, which must not exist; None is beside the tar, without its suffix.

    Raises:
        UserError: it is no such tar, is damaged or could write elsewhere, or the place is taken. Nothing is left then.
    """
    source = Path(file)
    if not is_file(source):
        raise UserError(f"{shown(str(source))} is no file: {_MEND}")
    place = Path(out) if out is not None else _beside(source)
    if os.path.lexists(place):
        raise UserError(f"{shown(str(place))} exists: name another place with --out, or remove it")
    try:
        with source.open("rb") as opened:
            members = _members(opened, os.fstat(opened.fileno()).st_size, shown(str(source)))
            with whole_folder(place) as folder:
                for member in members:
                    _write(opened, member, folder / member.name, shown(str(source)))
                _check(folder, shown(str(source)))
    except OSError as error:
        raise UserError(f"{shown(str(source))} cannot be unpacked: {os.strerror(error.errno or 0).lower()}") from error
    return Unpacked(place, len(members))


def _beside(source: Path) -> Path:
    if source.suffix != ".tar":
        raise UserError(f"{shown(str(source))} has no suffix .tar to leave out: name the folder with --out")
    return source.with_suffix("")


def _members(file: BinaryIO, end: int, where: str) -> list[_Member]:
    """What a tar holds, where none of it can do harm."""
    found: dict[str, _Member] = {}  # by their names in small letters
    folders = set[str]()
    for info, start in _headers(file, end, where):
        folder, _, name = info.name.partition("/")
        if not _is_plain(folder) or (name != "" if info.isdir() else not _is_plain(name)):
            raise UserError(
                f"{where} holds {shown(info.name, quoted=True)}: {_expected('FOLDER/NAME of plain letters')}"
            )
        folders.add(folder)
        if len(folders) > 1 or len(found) >= _MOST_FILES:
            what = "several folders" if len(folders) > 1 else f"more than {_MOST_FILES:,} files"
            raise UserError(f"{where} holds {what}: {_expected('one folder')}")
        if info.isdir():
            continue
        known = found.setdefault(name.lower(), _Member(name, start, info.size))
        if known.start != start:
            raise UserError(f"{where} holds {shown(known.name)} and {shown(name)}: {_expected('names that differ')}")
    manifest = found.get(MANIFEST)
    if manifest is None or manifest.size > _LARGEST_MANIFEST:
        told = f"no {MANIFEST}" if manifest is None else f"a {MANIFEST} of {manifest.size} bytes"
        raise UserError(f"{where} holds {told}: {_MEND}")
    return list(found.values())


def _expected(what: str) -> str:
    return f"expected {what}, as `fimaq-deploy package --format tar` writes it"


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file on every system, and of the same one."""
    return bool(_NAME.fullmatch(name)) and len(name) <= _LONGEST_NAME and not name.endswith(".")


def _headers(file: BinaryIO, end: int, where: str) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Every regular file, and where its content begins.

    Raises:
        UserError: something else is in it, or it ends before it says so.
    """
    position, extended = 0, dict[str, str]()
    while True:
        file.seek(position)
        block = file.read(_BLOCK)
        if position == 0 and block.startswith(_COMPRESSED):
            raise UserError(f"{where} is compressed: decompress it first (gunzip, unxz, unzstd)")
        if len(block) < _BLOCK:
            raise UserError(f"{where} is truncated, or no tar: {_MEND}")
        if not any(block):
            return
        info, start = _parsed(block, where), position + _BLOCK
        info.size = int(extended.pop("size", info.size))
        info.name = extended.pop("path", info.name)
        if info.type not in _READ:
            kind = _KINDS.get(info.type, f"an entry of type {info.type!r}")
            raise UserError(f"{where} holds {kind}, {shown(info.name)}: {_expected('regular files alone')}")
        if not 0 <= info.size <= end - start:
            raise UserError(f"{where} is truncated: {shown(info.name)} has {info.size} bytes, {end - start} are left")
        if info.type == tarfile.XHDTYPE:
            extended = _extended(file.read(min(info.size, _LARGEST_HEADER + 1)), where)
        else:
            yield info, start
        position = start + -(-info.size // _BLOCK) * _BLOCK


def _parsed(block: bytes, where: str) -> tarfile.TarInfo:
    with suppress(tarfile.TarError, ValueError):
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    raise UserError(f"{where} is damaged, or no tar (a header cannot be read): {_MEND}")


def _extended(data: bytes, where: str) -> dict[str, str]:
    """Of an extended header, "LENGTH KEY=VALUE" a line: the name and the size of the file behind it, where it says."""
    found: dict[str, str] = {}
    try:
        while data:
            length = int(data[: data.index(b" ")][:9])
            record, data = data[:length], data[length:]
            key, equals, value = record.partition(b" ")[2].decode().partition("=")
            if not equals or not value.endswith("\n") or len(record) != length:
                raise ValueError
            found[key] = value[:-1]
        if not _SIZE.fullmatch(found.get("size", "0")):
            raise ValueError
    except ValueError:
        raise UserError(f"{where} is damaged: an extended header cannot be read; {_MEND}") from None
    for key in found.keys() - {"path", "size"} - _IDLE:
        raise UserError(f"{where} holds an extended header {shown(key)}: {_expected('plain files')}")
    return {key: value for key, value in found.items() if key not in _IDLE}


def _write(source: BinaryIO, member: _Member, path: Path, where: str) -> None:
    source.seek(member.start)
    left = member.size
    with path.open("xb") as file:
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise UserError(f"{where} became shorter while it was read: {_MEND}")
            file.write(chunk)
            left -= len(chunk)


def _check(folder: Path, where: str) -> None:
    """That it is a build, in words about the tar and not about the folder, which will not be there."""
    try:
        check_folder(folder)
    except UserError as error:
        said = str(error).replace(f"{folder}{os.sep}", "").partition(":")[0]
        raise UserError(f"{where} is not the tar of a build ({said}): {_MEND}") from None
