"""A file is read with its functions inlined, its constants stored and its shapes inferred."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.structure import read_structure

# The product stands in a function, its weight is a Constant node, and no shape is written inside.
INSIDE = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (float[n, 3, 2] x) => (float[a, b, c] y) {
    s = Constant <value = float {0.5}> ()
    z = Constant <value = int8 {0}> ()
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    w = Constant <value = float[2, 4] {1, 2, 3, 4, 5, 6, 7, 8}> ()
    y = own.linear (d, w)
}
<domain: "own", opset_import: ["" : 21]> linear (x, w) => (y) { y = MatMul (x, w) }"""


def saved(folder: Path, text: str = INSIDE) -> Path:
    onnx.save(parser.parse_model(text), folder / "model.onnx")
    return folder / "model.onnx"


def test_what_it_computes_is_found_inside_functions_and_constants(tmp_path: Path) -> None:
    found = read_structure(saved(tmp_path))
    (pair,), (product,) = found.pairs, found.products
    assert found.opset == 21 and found.attentions == ()
    assert [node.op_type for node in found.graph] == ["QuantizeLinear", "DequantizeLinear", "MatMul"]
    assert pair.is_activation and product.weight is not None and product.weight.stored is not None
    assert product.sizes == (2, 4)
    assert found.graph[-1].outputs[0].shape is not None and found.graph[-1].outputs[0].shape[1:] == (3, 4)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_batch_size_goes_through_the_whole_graph(tmp_path: Path, batch: int) -> None:
    graph = read_structure(saved(tmp_path), batch).graph
    assert [value.shape[0] for value in (*graph.inputs, graph[0].outputs[0], graph[-1].outputs[0])] == [batch] * 3


def test_without_a_batch_size_the_files_own_stays(tmp_path: Path) -> None:
    graph = read_structure(saved(tmp_path)).graph
    assert str(graph.inputs[0].shape[0]) == "n"


def test_shapes_that_were_written_for_another_batch_are_forgotten(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2, 3] x) => (float[2, 3] y) <float[2, 3] r> { r = Relu (x) y = Relu (r) }"""
    graph = read_structure(saved(tmp_path, text), 7).graph
    assert [list(node.outputs[0].shape) for node in graph] == [[7, 3], [7, 3]]


def test_attention_is_found_in_order(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["ai.onnx" : 17]> g (float[n, 4, 4] x) => (float[n, 4, 4] y) {
        a = MatMul (x, x) b = Softmax (a) c = MatMul (b, x) d = Softmax (c) e = MatMul (d, c) y = Softmax (e)
    }"""
    found = read_structure(saved(tmp_path, text))
    assert found.opset == 17 and [product.node.op_type for product in found.products] == ["MatMul"] * 3
    assert [attention.softmax.outputs[0].name for attention in found.attentions] == ["b", "d"]


def test_a_graph_of_nothing_is_one_line(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] x) { }'
    with pytest.raises(UserError, match=r"model\.onnx holds no ONNX graph: name a complete \.onnx file"):
        read_structure(saved(tmp_path, text))


def test_a_graph_of_no_standard_opset_is_one_line(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["own" : 1]> g (float[1] x) => (float[1] y) { y = own.f (x) }'
    with pytest.raises(UserError, match="holds no ONNX graph"):
        read_structure(saved(tmp_path, text))


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ONNX file .*nowhere\.onnx"):
        read_structure(tmp_path / "nowhere.onnx")
