"""Small tools that read and edit a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fimaq_deploy.graph import edit

Draw = Callable[[str], ir.Model]
# One quantized product with a Clip before its activation.
PRODUCT = """g (float[n, 2] x) => (float[n, 3] y)
    <float scale = {0.5}, float low = {-1}, float high = {1}, int8 zero = {0},
     int8[2, 3] stored = {1, 2, 3, 4, 5, 6}, float[3] scales = {1, 2, 3}> {
        c = Clip (x, low, high)
        q = QuantizeLinear (c, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        w = DequantizeLinear <axis = 1> (stored, scales)
        y = MatMul (d, w)
    }"""


@pytest.fixture
def graph(draw: Draw) -> ir.Graph:
    return draw(PRODUCT).graph


def made(graph: ir.Graph, name: str) -> ir.Value:
    return next(output for node in graph for output in node.outputs if output.name == name)


def test_operators_are_known_by_kind_and_domain(graph: ir.Graph) -> None:
    product = graph[-1]
    assert edit.is_operator(product, "Gemm", "MatMul") and not edit.is_operator(product, "Gemm")
    assert not edit.is_operator(None, "MatMul")
    assert [node.name for node in edit.nodes_of(graph, "Clip", "MatMul")] == [graph[0].name, product.name]
    product.domain = "com.microsoft"
    assert not edit.is_operator(product, "MatMul") and edit.nodes_of(graph, "MatMul") == []


def test_places_of_a_node_are_read(graph: ir.Graph) -> None:
    quantize = graph[1]
    assert edit.read_at(quantize, 0) is graph[0].outputs[0]
    assert edit.optional_at(quantize, 2) is graph.initializers["zero"] and edit.optional_at(quantize, 3) is None
    assert edit.maker(quantize.inputs[0], "Clip") is graph[0] is edit.maker(quantize.inputs[0])
    assert edit.maker(quantize.inputs[0], "Relu") is None and edit.maker(graph.inputs[0]) is None
    quantize.replace_input_with(2, None)
    assert edit.optional_at(quantize, 2) is None
    with pytest.raises(AssertionError, match="reads nothing at place 2"):
        edit.read_at(quantize, 2)


def test_shapes_are_read_and_a_batch_is_not_fixed(graph: ir.Graph) -> None:
    assert edit.sizes(made(graph, "y"))[1] == edit.fixed(made(graph, "y"), 1) == edit.fixed(made(graph, "y"), -1) == 3
    assert (edit.rank(made(graph, "y")), edit.rank(None)) == (2, None)
    with pytest.raises(AssertionError, match="axis 0 of y is not fixed"):
        edit.fixed(made(graph, "y"), 0)
    made(graph, "d").shape = None
    assert edit.rank(made(graph, "d")) is None
    with pytest.raises(AssertionError, match="shape of d is not known"):
        edit.sizes(made(graph, "d"))


def test_int4_constants_come_unpacked(graph: ir.Graph) -> None:
    packed = helper.make_tensor("four", TensorProto.INT4, [3], [-8, 0, 7])
    kind = ir.TensorType(ir.DataType.INT4)
    value = ir.Value(name="four", type=kind, const_value=ir.serde.deserialize_tensor(packed))
    array = edit.numpy_of(value)
    assert array is not None and array.dtype == np.int8 and array.tolist() == [-8, 0, 7]
    assert edit.numpy_of(made(graph, "d")) is None and edit.numpy_of(None) is None


def test_a_chain_ends_where_somebody_else_reads(graph: ir.Graph) -> None:
    chain = edit.quantizing_chain(made(graph, "d"))
    assert chain == list(graph)[:3] and edit.has_one_scale(chain)
    graph.append(ir.node("Relu", [made(graph, "c")]))
    assert edit.quantizing_chain(made(graph, "d")) == list(graph)[1:3]
    graph.append(ir.node("Relu", [made(graph, "q")]))
    assert edit.quantizing_chain(made(graph, "d")) is None
    assert edit.quantizing_chain(made(graph, "w")) is None and edit.quantizing_chain(None) is None


def test_a_scale_for_each_channel_or_one_that_is_computed_is_not_one_scale(graph: ir.Graph) -> None:
    chain = list(graph)[1:3]
    chain[1].replace_input_with(1, graph.initializers["scales"])
    assert not edit.has_one_scale(chain)
    chain[1].replace_input_with(1, graph.inputs[0])
    assert not edit.has_one_scale(chain)


def test_integer_weights_are_stored_and_dequantized(graph: ir.Graph) -> None:
    assert [edit.is_integer_weight(node) for node in graph] == [False, False, False, True, False]
    assert edit.has_integer_weights(graph[-1]) and not edit.has_integer_weights(graph[2])
    assert not edit.is_integer_weight(None)


def test_equal_constants_are_stored_once(graph: ir.Graph) -> None:
    before = len(graph.initializers)
    first, again = (edit.stored_scalar(graph, np.array(2.5, np.float32)) for _ in range(2))
    assert first is again and first.name == "float32_2.5" and first.dtype is ir.DataType.FLOAT
    assert edit.stored_scalar(graph, np.array(2.5, np.float16)) is not first
    axes = edit.stored_axes(graph, [0, 2])
    assert axes is edit.stored_axes(graph, [0, 2]) and axes.shape == [2] and axes.dtype is ir.DataType.INT64
    assert len(graph.initializers) == before + 3


def test_an_output_keeps_its_name_when_it_is_replaced(graph: ir.Graph) -> None:
    node = ir.node("Relu", [made(graph, "y")])
    graph.append(node)
    old = made(graph, "y")
    new = edit.typed(node.outputs[0], ir.DataType.FLOAT, old.shape)
    edit.replace(old, new)
    node.replace_input_with(0, old)
    assert graph.outputs[0] is new and new.name == "y" and old.name
    assert list(edit.broken_order(graph)) == []
    with pytest.raises(AssertionError, match="would have no type"):
        edit.typed(new, None, None)


def test_a_bypassed_node_is_gone_and_its_input_read(graph: ir.Graph) -> None:
    clip, quantize = graph[0], graph[1]
    edit.bypass(clip)
    assert quantize.inputs[0] is graph.inputs[0] and clip not in list(graph)
    assert list(edit.broken_order(graph)) == []


def test_what_is_out_of_order_or_nameless_or_missing_is_told(graph: ir.Graph) -> None:
    first, last = graph[0], graph[-1]
    graph.remove(first)
    graph.append(first)
    last.outputs[0].name = None
    outside = ir.node("Relu", [graph.inputs[0]]).outputs[0]
    outside.name = "outside"
    graph.outputs.append(outside)
    assert list(edit.broken_order(graph)) == [
        f"{graph[0].name} reads c, which nothing before it makes",
        f"a result of {last.name} has no name",
        "nothing makes the output outside",
    ]
