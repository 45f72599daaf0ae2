"""What is stored, what sizes are known, who computes a value and who reads it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.graph.values import dimension, input_of, integer_type, numbers, producer, readers, stored_tensor

GRAPH = """g (float[n, 4] x) => (float[n, 4] y, float[m, 4] z)
    <float[4] stored = {1, 2, 3, 4}> {
        sum = Add (x, stored)
        moved = Transpose <perm = [1, 0]> (sum)
        back = Transpose <perm = [1, 0]> (moved)
        y = Relu (back)
        z = Concat <axis = 0> (sum, back)
        size = Shape (sum)
    }"""


@pytest.fixture
def graph(draw: Callable[[str], ir.Model]) -> ir.Graph:
    return draw(GRAPH).graph


def value(graph: ir.Graph, name: str) -> ir.Value:
    return next(output for node in graph for output in node.outputs if output.name == name)


def test_only_constants_of_the_file_are_stored(graph: ir.Graph) -> None:
    found = numbers(graph.initializers["stored"])
    assert found is not None and found.tolist() == [1, 2, 3, 4]
    assert [stored_tensor(each) for each in (graph.inputs[0], value(graph, "sum"), None)] == [None] * 3
    assert numbers(value(graph, "sum")) is None


def test_an_input_with_a_number_for_when_nothing_comes_is_not_stored(graph: ir.Graph) -> None:
    graph.inputs.append(graph.initializers["stored"])
    assert numbers(graph.initializers["stored"]) is None


@pytest.mark.parametrize(("axis", "size"), [(1, 4), (-1, 4), (0, None), (-2, None), (2, None), (-3, None)])
def test_a_size_is_known_where_it_is_a_number_of_an_axis_that_is_there(
    graph: ir.Graph, axis: int, size: int | None
) -> None:
    assert dimension(value(graph, "sum"), axis) == size


def test_a_tensor_without_a_shape_has_no_known_size(graph: ir.Graph) -> None:
    value(graph, "sum").shape = None
    assert dimension(value(graph, "sum"), 0) is None


def test_what_is_missing_has_no_producer_and_is_no_input(graph: ir.Graph) -> None:
    add = producer(value(graph, "sum"))
    assert add is not None and add.op_type == "Add"
    assert input_of(add, 0) is graph.inputs[0] and input_of(add, 2) is None
    assert producer(None) is None and producer(graph.inputs[0]) is None


def test_readers_are_found_behind_what_only_moves_and_shapes_are_not_read(graph: ir.Graph) -> None:
    """Concat moves the numbers of every input, so behind it nothing reads `z`."""
    assert [node.op_type for node in readers(value(graph, "sum"))] == ["Relu"]
    assert [node.op_type for node in readers(graph.inputs[0])] == ["Add"]


def test_what_only_says_how_to_move_is_read(draw: Callable[[str], ir.Model]) -> None:
    graph = draw("g (float[4] x, int64[1] shape) => (float[a] y) { y = Reshape (x, shape) }").graph
    assert [node.op_type for node in readers(graph.inputs[1])] == ["Reshape"]
    assert list(readers(graph.inputs[0])) == []


QUANTIZERS = """g (float[4] x, int8[4] i) => (float[4] a, float[4] b)
    <float s = {0.5}, uint8 zero = {3}> {
        with = QuantizeLinear (x, s, zero)
        without = QuantizeLinear (x, s)
        named = QuantizeLinear <output_dtype = 3> (x, s)
        a = DequantizeLinear (with, s, zero)
        b = DequantizeLinear (i, s)
    }"""


def test_the_type_of_integers_is_said_in_one_of_three_places(draw: Callable[[str], ir.Model]) -> None:
    """Zero point, `output_dtype` or, of a DequantizeLinear, what it reads; UINT8 where nothing says it."""
    kinds = [integer_type(node) for node in draw(QUANTIZERS).graph]
    uint8, int8 = ir.DataType.UINT8, ir.DataType.INT8
    assert kinds == [uint8, uint8, int8, uint8, int8]
    assert np.dtype(kinds[0].numpy()) == np.uint8
