"""The artifact folder: written beside its place, moved there when it is whole, with a manifest of what it holds.

A build works in `<out>.partial`. When it ends well, that folder becomes `<out>`; when it is stopped, however and
whenever, `<out>` is as it was before, and the partial folder stays only where it holds a state to resume from. One
process at a time builds a folder: a second one is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fimaq_deploy.errors import Stopped, UserError, shown
from fimaq_deploy.files import disk_is_full, locked, write_whole
from fimaq_deploy.files.folders import (
    MARK,
    REPLACED,
    empty_construction,
    lock_of,
    publish_folder,
    put_back,
    real_place,
    remove_construction,
    tidy_folder,
    under_construction,
)
from fimaq_deploy.files.whole import make_folder
from fimaq_deploy.manifest import MANIFEST

STATE = "resume"
REQUEST_FILE = MARK
# Float and quantized ONNX, half-precision files, engines and safetensors stay below it.
_BYTES_PER_PARAMETER = 20
_BYTES_ALWAYS = 16 * 2**20
_BUSY = "{out} is being built by {owner}: wait for it, or name another folder with --out"


@contextmanager
def staged(out: Path, request: Mapping[str, Any], *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """A working folder that becomes `out` when the block ends without an error. A link given as `out` stays a link.

    request: what is being built; a partial folder is resumed only for the same request.

    Raises:
        UserError: `out` exists and may not be replaced, cannot be written, is being built by another process, or the
            disk is full.
        Stopped: for a KeyboardInterrupt in the block, with a line about what is left.
    """
    with _reserved(out) as place:
        check_out(place, overwrite=overwrite)
        _open_partial(place, out, request, resume)
        try:
            yield under_construction(place)
            _publish(place, out)
        except KeyboardInterrupt as error:
            raise Stopped(_how_to_go_on(place, out)) from error
        except BaseException as error:
            kept = _discard_unless_resumable(place)
            if disk_is_full(error):
                again = "build again with --resume" if kept else "build again"
                raise UserError(f"{out}: no space left to write it; free some and {again}") from error
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


def require_space(folder: Path, parameters: int) -> None:
    """Refuse to build a model of so many parameters where its files cannot fit.

    Raises:
        UserError: the disk has less free space than the artifacts will take.
    """
    needed_bytes = _BYTES_PER_PARAMETER * parameters + _BYTES_ALWAYS
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"{folder.parent}: {free / 1e6:.0f} MB are free, but this build writes about {needed_bytes / 1e6:.0f} MB; "
            "free some space or name another disk with --out"
        )


@contextmanager
def _reserved(out: Path) -> Iterator[Path]:
    """Where `out` really is, for this process alone, with whatever a stopped one left there put right."""
    place = real_place(out)
    with ExitStack() as held:
        with _one_line(out):
            held.callback(_remove_empty, [folder for folder in place.parents if not folder.exists()])
            make_folder(place.parent)
            held.enter_context(locked(lock_of(place), _BUSY.replace("{out}", str(out))))
            put_back(place)
            tidy_folder(place, STATE)
        yield place


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _one_line(out: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise UserError(f"cannot write {out}: {error.filename} is not a directory; name another folder") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UserError(f"cannot write {shown(str(out))}: {reason}; name another folder") from error


def _open_partial(place: Path, out: Path, request: Mapping[str, Any], resume: bool) -> None:
    wanted, folder = json.dumps(request, indent=2, sort_keys=True), under_construction(place)
    mark = folder / MARK
    with _one_line(out):
        if folder.exists() and not mark.is_file() and (not folder.is_dir() or any(folder.glob("[!.]*"))):
            raise UserError(f"{folder} exists and is not an unfinished build: remove it or name another --out")
        if (folder / REPLACED).exists():
            raise UserError(f"{folder / REPLACED} is an earlier build, but another stands in its place: move one away")
        if resume and mark.is_file() and mark.read_text(encoding="utf-8") != wanted:
            raise UserError(
                f"{folder} was started with other settings and cannot be resumed: build without --resume to start over"
            )
        folder.mkdir(exist_ok=True)
        empty_construction(place, *([STATE] if resume else []))
        write_whole(mark, wanted.encode())


def _publish(place: Path, out: Path) -> None:
    try:
        publish_folder(place)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UserError(
            f"{out}: the finished build cannot take its place ({reason}), and what stood there is untouched: "
            "see to that and build again with --resume"
        ) from error
    with suppress(OSError):
        tidy_folder(place, STATE)


def _how_to_go_on(place: Path, out: Path) -> str:
    if not under_construction(place).exists():
        return f"{out} is whole: its build had just ended"
    if _discard_unless_resumable(place):
        return f"{out}: finished blocks are kept; go on with the same command and --resume"
    return f"{out}: no block was finished, so nothing is left of it; start it again"


def _discard_unless_resumable(place: Path) -> bool:
    """Whether the partial folder was kept: it holds blocks, or an earlier build that could not be put back."""
    folder = under_construction(place)
    if (folder / REPLACED).exists() or any((folder / STATE).glob("[!.]*")):
        return True
    with suppress(OSError):
        remove_construction(place)
    return False
