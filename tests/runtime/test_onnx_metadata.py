from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from fimaq_deploy.contract import KEY, Contract, Output
from fimaq_deploy.errors import UserError
from fimaq_deploy.runtime.onnx_metadata import contract_in, read_metadata

CONTRACT = Contract((1, 4, 4), (0.5,), (0.5,), (4, 4), outputs=(Output("y", "float32", (4,), "classes"),))


def save(path: Path, **metadata: str) -> Path:
    value = [helper.make_tensor_value_info(name, 1, [None, 4]) for name in "xy"]
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:]))
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_keys_and_values_are_those_that_onnx_wrote(tmp_path: Path) -> None:
    told = {"a": "1", "empty": "", "long": "ü" * 5000}
    assert read_metadata(save(tmp_path / "m.onnx", **told)) == told
    assert read_metadata(save(tmp_path / "none.onnx")) == {}


def test_the_contract_is_there_or_not(tmp_path: Path) -> None:
    assert contract_in(save(tmp_path / "m.onnx", **{KEY: CONTRACT.text()})) == CONTRACT
    assert contract_in(save(tmp_path / "none.onnx", other="x")) is None


def test_every_cut_of_a_file_is_refused_or_has_less(tmp_path: Path) -> None:
    whole = save(tmp_path / "m.onnx", key="value").read_bytes()
    cut = tmp_path / "cut.onnx"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        try:
            assert read_metadata(cut) in ({}, {"key": "value"})
        except UserError as error:
            assert "is not an ONNX model" in str(error)


@pytest.mark.parametrize("content", [b"\x0b" * 40, b"PK\x03\x04" + b"\xff" * 60, b"\x72\xff\xff\xff\xff\x7f"])
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is not an ONNX model"):
        read_metadata(tmp_path / "m.onnx")


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ONNX file"):
        read_metadata(tmp_path / "m.onnx")
