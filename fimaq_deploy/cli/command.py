"""How every command is called: what no value may be, and what becomes of whatever a command ends with."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from fimaq_deploy.cli.outputs import check_outputs
from fimaq_deploy.errors import Stopped, UserError, shown, without_builder
from fimaq_deploy.files import disk_is_full

_LARGEST = 2**63 - 1
_LONGEST = 800  # of a line about what was given, which may quote all of it
# The base of what the parser raises; where its module is differs between versions of typer.
_Misuse: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory")
# What a system says of a name that a user gave, wherever it was that somebody first asked for it.
_NO_PLACE = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS}
_AGAIN = "nothing is left half-written; run the same command again"


class Interrupted(Exception):
    """A KeyboardInterrupt on its way through the parser, which would end the program without a word."""


class Command(TyperCommand):
    """A command whose values have been looked at before it runs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typed: a path without a letter would become the current folder."""
        takes = {name for one in self.params if not getattr(one, "is_flag", False) for name in one.opts}
        for before, word in pairwise(("", *args)):
            name, equals, value = word.partition("=")
            if not word or (equals and not value and name in takes):
                option = name or (before if before in takes else "an argument")
                raise UserError(f"{option} is empty: give it a value or leave it out")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for parameter in self.params:
            for value in _each(ctx.params.get(parameter.name or "")):
                _check(max(parameter.opts, key=len), value)
        check_outputs(ctx.params)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value
    else:
        yield value


def _check(name: str, value: Any) -> None:
    """Refuse what no option can mean: nothing at all, no text, no number."""
    if isinstance(value, (str, Path)):
        _check_text(name if name.startswith("-") else name.upper(), str(value))
    elif isinstance(value, float) and not isfinite(value):
        raise UserError(f"{name} {value}: expected a number")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise UserError(f"{name} {shown(value)}: expected a whole number of at most {_LARGEST}")


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise UserError(f"{name} is empty: give it a value or leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} {shown(ascii(text))} is not UTF-8: rename it") from None
    if "\0" in text:
        raise UserError(f"{name} {shown(ascii(text))} holds a NUL byte: leave it out")


def line_of(error: BaseException) -> str | None:
    """What a user is told of an error that ended a command, or None for a fault of our own. Empty: it was told."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, _Misuse):
        message, context = " ".join(error.format_message().split()).rstrip("."), getattr(error, "ctx", None)
        return f"{message}; see {context.command_path} --help" if message and context else message
    if isinstance(error, OSError) and error.filename is not None and error.errno in _NO_PLACE:
        return f"{shown(str(error.filename))}: {os.strerror(error.errno).lower()}; name another place"
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in said.lower() for words in _OUT_OF_MEMORY):
        return f"not enough memory ({shown(said)}): take smaller images or batches, or fewer images"
    if disk_is_full(error):
        return f"no space left on a disk ({shown(said)}): free some, also where TMPDIR leads, and run it again"
    return without_builder(error)


def shortened(line: str) -> str:
    """A line with both its ends, what was given and what to do."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def way_on(error: BaseException) -> str:
    """How to go on after an interruption: what the work that was interrupted says, wherever it is in the chain."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, Stopped):
            return str(seen)
        seen = seen.__cause__ or seen.__context__
    return _AGAIN
