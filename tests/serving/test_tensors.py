from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimaq_deploy.contract import Contract, Output
from fimaq_deploy.serving.tensors import Refused, read_request, write_response

CONTRACT = Contract((1, 2, 2), (0.5,), (0.5,), (2, 2), outputs=(Output("logits", "float32", (3,), "classes"),))
NUMBERS = [0.5, -1.0, 0.25, 2.0]


def body(**changes: Any) -> bytes:
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": NUMBERS}
    tensor.update(changes)
    return json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()


def test_numbers_may_be_flat_or_nested() -> None:
    flat, nested = (
        read_request(body(), None, CONTRACT),
        read_request(body(data=[[[NUMBERS[:2], NUMBERS[2:]]]]), None, CONTRACT),
    )
    assert flat.images.dtype == np.float32 and flat.images.shape == (1, 1, 2, 2)
    assert np.array_equal(flat.images, nested.images)


def test_bytes_follow_the_json() -> None:
    head = body(data=None, parameters={"binary_data_size": 16})
    found = read_request(head + np.array(NUMBERS, "<f4").tobytes(), str(len(head)), CONTRACT)
    assert found.images.ravel().tolist() == NUMBERS


def test_a_file_that_normalises_itself_takes_bytes() -> None:
    contract = replace(CONTRACT, pixels=True)
    shape, kind = [1, 2, 2, 1], "UINT8"
    found = read_request(body(shape=shape, datatype=kind, data=[0, 1, 2, 255]), None, contract)
    assert found.images.dtype == np.uint8 and found.images.shape == (1, 2, 2, 1)
    with pytest.raises(Refused, match="0 to 255"):
        read_request(body(shape=shape, datatype=kind, data=[0, 1, 2, 256]), None, contract)


REFUSED: dict[str, tuple[bytes, str | None]] = {
    "is not JSON": (b"{", None),
    "no JSON object": (b"[]", None),
    "expected one tensor": (b"{}", None),
    "Inference-Header-Content-Length": (body(), "-3"),
    "expected a number of at most": (body(), "99999"),
    "holds 3 numbers": (body(data=NUMBERS[:3]), None),
    "expected numbers": (body(data=["x"] * 4), None),
    "expected a list of numbers": (body(data=None), None),
    "bytes follow": (body(data=None, parameters={"binary_data_size": 16}), None),
    "holds NaN": (body(data=[1e300] * 4), None),
    "has shape": (body(shape=[0, 1, 2, 2], data=[]), None),
    "parameters: expected an object": (body(parameters=[1]), None),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_request_is_refused(message: str) -> None:
    with pytest.raises(Refused, match=message) as found:
        read_request(*REFUSED[message], CONTRACT)
    assert found.value.status == 400


@given(st.binary(max_size=200), st.none() | st.text(max_size=5))
def test_any_bytes_are_a_request_or_refused(data: bytes, header: str | None) -> None:
    with pytest.raises(Refused):
        read_request(data, header, CONTRACT)


def test_a_response_is_json_or_has_bytes_behind_it() -> None:
    outputs = {"logits": np.array([[1.0, np.nan, 3.0]], np.float32)}
    asked = read_request(body(), None, CONTRACT)
    data, header = write_response(asked, outputs, "m")
    assert header is None and json.loads(data)["outputs"][0]["data"] == [1.0, None, 3.0]
    data, header = write_response(replace(asked, binary=True), outputs, "m")
    assert header is not None and json.loads(data[:header])["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert np.array_equal(np.frombuffer(data[header:], "<f4"), outputs["logits"][0], equal_nan=True)
