"""The `metadata_props` of an ONNX file, read without onnx: outermost fields of its protobuf, the rest skipped.

A file is a row of fields, each a number that holds its field and its wire type, then its content
(https://protobuf.dev/programming-guides/encoding/). Of ModelProto, field 14 is `metadata_props`, a message of a key
(field 1) and a value (field 2). A skipped field is not read, so a large file costs no more than a small one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fimaq_deploy.contract import KEY, Contract, parse_contract
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.manifest import check_file

_METADATA, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LARGEST = 2**24  # bytes of one entry


def contract_in(path: Path, *, checked: bool = True) -> Contract | None:
    """The contract in an ONNX file; None where it has none. checked: refuse a file of a build that was changed.

    Raises:
        UserError: it is no ONNX file, not what its build wrote, or its contract cannot be read.
    """
    text = read_metadata(path, checked=checked).get(KEY)
    return None if text is None else parse_contract(text, str(path))


def read_metadata(path: Path, *, checked: bool = True) -> dict[str, str]:
    """Keys and values, in the file's order. checked: refuse a file of a build that was changed.

    Raises:
        UserError: no such file, not what its build wrote, or no protobuf.
    """
    if checked:
        check_file(path)
    try:
        with path.open("rb") as file:
            return dict(_entry(data) for data in _contents(file, os.fstat(file.fileno()).st_size, _METADATA))
    except OSError as error:
        raise UserError(f"no ONNX file {shown(str(path))} ({os.strerror(error.errno or 0).lower()})") from None
    except ValueError as error:
        raise UserError(f"{path} is not an ONNX model ({error}): it may be truncated or of another format") from None


def _entry(data: bytes) -> tuple[str, str]:
    key, value = ("".join(part.decode() for part in _contents(io.BytesIO(data), len(data), n)) for n in (_KEY, _VALUE))
    return key, value


def _contents(file: BinaryIO, end: int, wanted: int) -> Iterator[bytes]:
    """The content of each field of that number; it is one of a length. Raises ValueError for what is no protobuf."""
    file.seek(0)
    while file.tell() < end:
        number, wire = divmod(_varint(file), 8)
        if wire == _VARINT:
            _varint(file)
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire) if wire != _LENGTH else _varint(file)
        if size is None or number == 0 or file.tell() + size > end:
            raise ValueError("no protobuf")
        if number != wanted or wire != _LENGTH:
            file.seek(size, os.SEEK_CUR)
        elif size > _LARGEST:
            raise ValueError(f"an entry of {size} bytes")
        else:
            yield file.read(size)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no protobuf")
