"""Stored numbers: whether they are all there, also where a file keeps them in another one, which must lie beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import onnx
import onnx_ir as ir

from fimaq_deploy.errors import shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.graph.protos import every_tensor, node_tensors

_BESIDE = "keep the numbers in a file beside the model (onnx.save with save_as_external_data and a plain location)"


def faulty_data(model: onnx.ModelProto, path: Path) -> Iterator[tuple[str, str, str]]:
    """The tensors whose data cannot be read from where the file says: name, problem, remedy."""
    tensors = [*every_tensor(model.graph), *(t for function in model.functions for t in node_tensors(function.node))]
    for tensor in tensors:
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        found = _problem(tensor, path) if outside else _stored_problem(tensor)
        if found is not None:
            yield tensor.name, *found


def _stored_problem(tensor: onnx.TensorProto) -> tuple[str, str] | None:
    """Why the numbers in the file itself are not those of a tensor. The checker sees only that they are too few."""
    needed = size_bytes(tensor)
    if any(size < 0 for size in tensor.dims):
        return f"a tensor of sizes {shown(list(tensor.dims))}", "export it again"
    if tensor.HasField("raw_data") and needed is not None and len(tensor.raw_data) != needed:
        return f"{len(tensor.raw_data)} bytes are stored for a tensor of {needed}", "export it again"
    return None


def _problem(tensor: onnx.TensorProto, path: Path) -> tuple[str, str] | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"external data {shown(location)}"
    if not location:
        return "external data without a location", _BESIDE
    if Path(location).is_absolute() or PureWindowsPath(location).drive or location.startswith("\\"):
        return f"{where} is an absolute path, which runtimes refuse", _BESIDE
    if "\0" in location:
        return f"{where} cannot be a file's name", _BESIDE
    file = path.parent / location
    if not _lies_beside(file, path):
        return f"{where} lies outside the folder of the file, which runtimes refuse", _BESIDE
    if not is_file(file):
        return f"{where} is missing or no file", "copy it to where the model is"
    return _range_problem(tensor, entries, os.path.getsize(file), where)  # noqa: PTH202


def _lies_beside(file: Path, model: Path) -> bool:
    """Whether a file, links followed, is in the folder of the model, as it is named or as it is."""
    real = os.path.realpath(file)
    folders = (os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model)))  # noqa: PTH120
    return any(os.path.commonpath([real, folder]) == folder for folder in folders)


def _range_problem(tensor: onnx.TensorProto, entries: dict[str, str], size: int, where: str) -> tuple[str, str] | None:
    needed = size_bytes(tensor) or 0
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or 0) or needed
    except ValueError:
        return f"{where}: offset or length is no number", _BESIDE
    if offset < 0 or length < 0:
        return f"{where}: offset or length is negative", _BESIDE
    if length < needed:
        return f"{where}: {length} bytes for a tensor of {needed}", "export it again"
    if offset + length > size:
        return f"{where} has {size} bytes, {offset + length} are read", "copy it again: it may be truncated"
    return None


def size_bytes(tensor: onnx.TensorProto) -> int | None:
    """How many bytes a tensor's numbers take; None where its type is not of a fixed size or is none."""
    try:
        item = ir.DataType(tensor.data_type).itemsize
    except (TypeError, ValueError):
        return None
    return math.ceil(math.prod(tensor.dims) * item)


def without_external_data(graph: onnx.GraphProto) -> None:
    """Make stored tensors whose data is elsewhere inputs, so that a checker needs no data."""
    inputs = {value.name for value in graph.input}
    away = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in away:
        if tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    kept = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    if away:
        del graph.initializer[:]
        graph.initializer.extend(kept)
    for tensor in every_tensor(graph):  # in attributes and branches, where there are no inputs
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(size_bytes(tensor) or 0)
