"""ONNX files written whole; numbers that are too many for one file go into one beside it.

A protobuf message holds 2 GB at most. `model.onnx` then keeps its numbers in `model.onnx.data`, which has to lie beside
it wherever it goes. The numbers are written first, so that a file that is there is one that can be read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir as ir

from fimaq_deploy.files import write_whole, written_whole

LARGEST_BYTES = 2**31 - 2**24  # of numbers in one file: the message has its nodes and names too
_LEAST_BYTES = 1024  # of a tensor that is worth a place beside the file: shapes and scales are read with the graph
_ALIGNMENT = 4096  # so that a runtime can map a tensor where it lies
_BLOCK = bytes(_ALIGNMENT)


def data_of(path: Path) -> Path:
    """Where the numbers of a file lie that has them beside it."""
    return path.with_name(f"{path.name}.data")


def size_of(path: Path) -> int:
    """Bytes of a file and of what lies beside it."""
    beside = data_of(path)
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def write_model(model: ir.Model, path: Path) -> Path:
    """Write a model. Its tensors are left where they are, so that another file can be written from it.

    Raises:
        UserError: a file cannot be written; what was there before is still there.
    """
    stored = [value for value in model.graph.initializers.values() if value.const_value is not None]
    total = sum(value.const_value.nbytes for value in stored if value.const_value is not None)
    before = {value: value.const_value for value in stored}
    try:
        if total > LARGEST_BYTES:
            _put_beside([value for value in stored if _is_large(value)], data_of(path))
        else:
            _take_in(stored)
        write_whole(path, ir.serde.serialize_model(model).SerializeToString(deterministic=True))
        if total <= LARGEST_BYTES:
            data_of(path).unlink(missing_ok=True)
    finally:
        for value, tensor in before.items():
            value.const_value = tensor
    return path


def copy_model(source: Path, path: Path) -> None:
    """A file as it is, with what lies beside it.

    The name of the data is in the file, so the copy has to have the file's own name.
    """
    beside = data_of(source)
    if beside.is_file():
        with written_whole(data_of(path)) as place:
            shutil.copyfile(beside, place)
    with written_whole(path) as place:
        shutil.copyfile(source, place)


def _is_large(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes >= _LEAST_BYTES


def _put_beside(values: list[ir.Value], place: Path) -> None:
    with written_whole(place) as beside, beside.open("wb") as file:
        found = list(_written(values, file, place))
    for value, tensor in found:
        value.const_value = tensor


def _written(values: list[ir.Value], file: BinaryIO, place: Path) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    offset = 0
    for value in values:
        own = value.const_value
        assert own is not None
        data = own.tobytes()
        file.write(data)
        file.write(_BLOCK[: -len(data) % _ALIGNMENT])
        kind, shape = own.dtype, ir.Shape(own.numpy().shape)
        where: dict[str, Any] = {"shape": shape, "name": str(value.name), "base_dir": place.parent}
        yield value, ir.ExternalTensor(place.name, offset, len(data), kind, **where)
        offset += len(data) + -len(data) % _ALIGNMENT


def _take_in(values: list[ir.Value]) -> None:
    """What was read from beside another file is written into this one."""
    for value in values:
        own = value.const_value
        if isinstance(own, ir.ExternalTensor):
            value.const_value = ir.Tensor(own.numpy().copy(), dtype=own.dtype, shape=own.shape, name=own.name)
