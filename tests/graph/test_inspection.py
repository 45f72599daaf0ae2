"""What a file stores: its integer weights and the grid of every quantized tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.grids import check_grids
from onnx import TensorProto, helper, parser

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.inspection import integer_weights, load_graph, load_model, load_proto

GRIDS = """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 2] x) => (float[n, 3] y)
    <float scale = {0.5}, float low = {-1}, float high = {1.5}, int8 zero = {0}, uint8 three = {3}, int8 top = {7},
     int8 bottom = {-5}, int8[2, 3] stored = {1, -2, 3, -4, 5, 6}, float[3] scales = {1, 2, 3}> {
        c = Clip (x, low, high)
        q = QuantizeLinear (c, scale, zero)
        a = DequantizeLinear (q, scale, zero)
        r = QuantizeLinear (a, scale, three)
        b = DequantizeLinear (r, scale, three)
        s = QuantizeLinear (b, scale, zero)
        t = Clip (s, bottom, top)
        d = DequantizeLinear (t, scale, zero)
        w = DequantizeLinear <axis = 1> (stored, scales)
        y = MatMul (d, w)
    }"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = parser.parse_model(GRIDS)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_grids_say_which_integers_can_occur(file: Path) -> None:
    found = check_grids(file)
    assert [
        (grid.node, grid.kind, grid.dtype, grid.zero_point, grid.low, grid.high, grid.clipped) for grid in found
    ] == [
        ("a", "activation", "INT8", 0, -2, 3, True),
        ("b", "activation", "UINT8", 3, 0, 255, False),
        ("d", "activation", "INT8", 0, -5, 7, True),
        ("w", "weight", "INT8", 0, -4, 6, False),
    ]
    assert [grid.scale.tolist() for grid in found] == [0.5, 0.5, 0.5, [1, 2, 3]]


def test_integer_weights_come_by_name_and_int4_unpacked(file: Path) -> None:
    model = onnx.load(file)
    packed = helper.make_tensor("four", TensorProto.INT4, [2, 2], [-8, 7, 0, 1])
    model.graph.initializer.append(packed)
    model.graph.node.append(helper.make_node("DequantizeLinear", ["four", "scale"], ["v"], "v"))
    onnx.save(model, file)
    found = integer_weights(file)
    assert list(found) == ["stored", "four"] and {array.dtype for array in found.values()} == {np.dtype(np.int8)}
    assert found["stored"].tolist() == [[1, -2, 3], [-4, 5, 6]] and found["four"].tolist() == [[-8, 7], [0, 1]]


@pytest.mark.parametrize("load", [load_graph, load_model, load_proto])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, load: Callable[[Path], object]) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "folder.onnx").mkdir()
    for name, reason in [("text", "is not an ONNX model"), ("none", "no ONNX file"), ("folder", "no ONNX file")]:
        with pytest.raises(UserError, match=reason) as raised:
            load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(raised.value)


def test_names_that_are_no_text_are_told_of_a_proto(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"stored", b"store\xff"))
    with pytest.raises(UserError, match=r"names that are no UTF-8"):
        load_proto(file)


def test_numbers_beside_the_file_must_be_there(file: Path) -> None:
    model = onnx.load(file)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "stored")
    stored.CopyFrom(helper.make_tensor("stored", TensorProto.INT8, [2, 3], bytes(6), raw=True))
    onnx.save(model, file, save_as_external_data=True, location="numbers.bin", size_threshold=1)
    assert "stored" in load_graph(file).initializers
    (file.parent / "numbers.bin").unlink()
    with pytest.raises(UserError, match=r"keeps its numbers in .*numbers\.bin, which is missing: copy it too"):
        load_model(file)
    assert load_proto(file).graph.name == "g"
