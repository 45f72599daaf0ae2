"""Requests and responses of the Open Inference Protocol v2, with JSON and binary tensors.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and its extension for binary tensors:
the JSON comes first, as long as the header `Inference-Header-Content-Length` says, and behind it the bytes of every
tensor with a `binary_data_size`, little-endian, in the order of the JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.contract import Contract
from fimaq_deploy.errors import shown

Array: TypeAlias = "NDArray[Any]"

HEADER = "Inference-Header-Content-Length"
_TYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "float64": "FP64",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


class Refused(Exception):
    """A request that is not answered. status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request for inference. outputs: names, and whether each comes back as bytes; empty: all, as `binary` says."""

    images: Array
    id: str | None = None
    outputs: Mapping[str, bool] = field(default_factory=dict)
    binary: bool = False


def datatype(dtype: str) -> str:
    """The protocol's name of a NumPy type."""
    return _TYPES[dtype]


def read_request(body: bytes, header: str | None, contract: Contract) -> Asked:
    """What a request for a model asks.

    header: the value of HEADER, None where there is none.

    Raises:
        Refused: it is no request of the protocol, or its tensor is not what the model reads.
    """
    document, rest = _document(body, header)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, f"inputs: expected one tensor, {contract.input_name}")
    parameters = _mapping(document, "parameters")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise Refused(400, "id: expected a text")
    images = _tensor(inputs[0], rest, contract)
    return Asked(images, request_id, _outputs(document, contract), parameters.get("binary_data_output") is True)


def write_response(asked: Asked, outputs: Mapping[str, Array], model: str) -> tuple[bytes, int | None]:
    """The body of a response, and the value of HEADER where it holds bytes behind its JSON."""
    wanted = asked.outputs or dict.fromkeys(outputs, asked.binary)
    tensors, data = [], []
    for name, binary in wanted.items():
        array = np.ascontiguousarray(outputs[name])
        tensor = {"name": name, "datatype": datatype(array.dtype.name), "shape": list(array.shape)}
        if binary:
            data.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            tensors.append({**tensor, "parameters": {"binary_data_size": len(data[-1])}})
        else:
            tensors.append({**tensor, "data": _numbers(array)})
    document: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": tensors}
    if asked.id is not None:
        document["id"] = asked.id
    head = json.dumps(document).encode()
    return b"".join([head, *data]), len(head) if data else None


def _document(body: bytes, header: str | None) -> tuple[dict[str, Any], bytes]:
    size = len(body) if header is None else int(header) if header.isascii() and header.isdigit() else -1
    if not 0 <= size <= len(body):
        raise Refused(400, f"{HEADER} {shown(str(header))}: expected a number of at most {len(body)}")
    try:
        document = json.loads(body[:size])
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the request is not JSON ({shown(str(error))})") from None
    if not isinstance(document, dict):
        raise Refused(400, "the request is no JSON object")
    return document, body[size:]


def _outputs(document: Mapping[str, Any], contract: Contract) -> dict[str, bool]:
    found, known = {}, [one.name for one in contract.outputs]
    asked = document.get("outputs", [])
    if not isinstance(asked, list):
        raise Refused(400, "outputs: expected a list")
    for one in asked:
        name = one.get("name") if isinstance(one, dict) else None
        if name not in known:
            raise Refused(400, f"output {shown(str(name))}: the model returns {', '.join(known)}")
        parameters = _mapping(one, "parameters")
        if "classification" in parameters:
            raise Refused(400, "classification: this server has no such extension; read the raw output")
        found[str(name)] = parameters.get("binary_data") is True
    return found


def _tensor(tensor: Mapping[str, Any], rest: bytes, contract: Contract) -> Array:
    if tensor.get("name") != contract.input_name:
        raise Refused(400, f"input {shown(str(tensor.get('name')))}: the model reads {contract.input_name}")
    dtype = np.dtype(np.uint8 if contract.pixels else np.float32)
    if tensor.get("datatype") != datatype(dtype.name):
        said = shown(str(tensor.get("datatype")))
        raise Refused(400, f"input {contract.input_name} is {said}: expected {datatype(dtype.name)}")
    shape = _shape(tensor.get("shape"), contract)
    size = _mapping(tensor, "parameters").get("binary_data_size")
    array = _of_numbers(tensor.get("data"), rest, dtype) if size is None else _of_bytes(size, rest, dtype)
    if array.size != math.prod(shape):
        raise Refused(400, f"input {contract.input_name} holds {array.size} numbers: its shape is {list(shape)}")
    if not np.isfinite(array).all():
        raise Refused(400, f"input {contract.input_name} holds NaN or infinity")
    return array.reshape(shape)


def _shape(given: Any, contract: Contract) -> tuple[int, ...]:
    expected = contract.input_shape[1:]
    whole = isinstance(given, list) and all(isinstance(side, int) and not isinstance(side, bool) for side in given)
    if not whole or len(given) != 1 + len(expected) or given[0] < 1 or tuple(given[1:]) != expected:
        told = shown(json.dumps(given))
        raise Refused(400, f"input {contract.input_name} has shape {told}: expected {[-1, *expected]}, -1 any number")
    return tuple(given)


def _of_bytes(size: Any, rest: bytes, dtype: np.dtype[Any]) -> Array:
    if not isinstance(size, int) or isinstance(size, bool) or size != len(rest) or size % dtype.itemsize:
        raise Refused(400, f"binary_data_size {shown(str(size))}: {len(rest)} bytes follow the JSON")
    return np.frombuffer(rest, dtype.newbyteorder("<")).astype(dtype, copy=False)


def _of_numbers(data: Any, rest: bytes, dtype: np.dtype[Any]) -> Array:
    """Numbers in a list, or in lists of lists, in the order of the shape."""
    if rest or not isinstance(data, list):
        raise Refused(400, "data: expected a list of numbers, or binary_data_size and bytes behind the JSON")
    try:
        values = np.asarray(data, np.float64).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"data: expected numbers ({shown(str(error))})") from None
    if dtype == np.uint8 and not ((values >= 0) & (values <= 255)).all():
        raise Refused(400, "data: expected numbers from 0 to 255")
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name) or {}
    if not isinstance(found, dict):
        raise Refused(400, f"{name}: expected an object")
    return found


def _numbers(array: Array) -> list[Any]:
    """Flat; what JSON cannot say is null."""
    flat = array.ravel()
    if not np.issubdtype(array.dtype, np.floating) or np.isfinite(flat).all():
        return flat.tolist()
    return [value if math.isfinite(value) else None for value in flat.tolist()]
