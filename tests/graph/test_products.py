"""Products and quantized tensors are found through whatever stands between."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from fimaq_deploy.graph.products import (
    Product,
    dequantized_products,
    is_left_alone,
    operand,
    output_axis,
    pairs_of,
    product_of,
    reads_one_row,
)

Draw = Callable[[str], ir.Model]
WEIGHTS = "int8[4, 3] stored = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3] scales = {1, 2, 3}"
MOVED = f"""g (float[n, 2, 2] x) => (float[n, 3] y)
    <float scale = {{0.5}}, int8 zero = {{0}}, float half = {{0.5}}, int64[2] flat = {{0, 4}}, {WEIGHTS}> {{
        q = QuantizeLinear (x, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        r = Reshape (d, flat)
        m = Mul (half, r)
        w = DequantizeLinear <axis = 1> (stored, scales)
        y = MatMul (m, w)
    }}"""


def only_product(graph: ir.Graph) -> Product:
    (product,) = (product for node in graph if node.op_type in ("MatMul", "Gemm") if (product := product_of(node)))
    return product


def test_operands_are_followed_through_moves_and_scalings(draw: Draw) -> None:
    graph = draw(MOVED).graph
    product = only_product(graph)
    activation, weight = product.operands
    assert activation.dequantizer is graph[1] and activation.stored is None and activation.is_activation
    assert [step.op_type for step in activation.steps] == ["Mul", "Reshape"]
    assert weight.dequantizer is graph[4] and weight.stored is graph.initializers["stored"]
    assert product.weight is weight and product.activations == (activation,)
    assert product.is_integer and product.sizes == (4, 3)


def test_another_activation_added_ends_the_search(draw: Draw) -> None:
    graph = draw(MOVED.replace("Mul (half, r)", "Add (half, r)")).graph
    product = only_product(graph)
    assert product.operands[0].dequantizer is None and product.operands[0].steps == ()
    assert product.operands[0].is_activation and not product.is_integer


def test_a_product_of_two_activations_is_no_scaling(draw: Draw) -> None:
    graph = draw("g (float[2, 2] x) => (float[2, 2] y) { a = Relu (x) m = Mul (a, x) y = MatMul (m, x) }").graph
    assert operand(graph[1].outputs[0]).steps == ()


def test_float_weights_are_stored_without_a_dequantizer(draw: Draw) -> None:
    graph = draw("g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }").graph
    product = only_product(graph)
    assert product.weight is product.operands[1] and product.weight.stored is graph.initializers["w"]
    assert product.weight.dequantizer is None and not product.is_integer


def test_a_node_that_lacks_an_operand_is_no_product(draw: Draw) -> None:
    node = draw(MOVED).graph[-1]
    node.replace_input_with(1, None)
    assert product_of(node) is None


PAIRS = f"""g (float[4, 3] x) => (float[4, 3] a, float[3, 4] b, float[4, 3] c, float[4, 3] e)
    <float scale = {{0.5}}, int8 zero = {{0}}, int8 low = {{-7}}, float[4, 3] kept = {{1,2,3,4,5,6,7,8,9,10,11,12}},
     {WEIGHTS}> {{
        q = QuantizeLinear (x, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        a = Relu (d)
        k = Clip (q, low)
        t = Transpose (k)
        u = DequantizeLinear (t, scale, zero)
        v = Transpose (u)
        b = Transpose (v)
        w = DequantizeLinear <axis = 1> (stored, scales)
        c = Add (x, w)
        p = QuantizeLinear (kept, scale, zero)
        o = DequantizeLinear (p, scale, zero)
        e = Add (x, o)
    }}"""


def test_pairs_are_quantizers_with_every_dequantizer_behind_them(draw: Draw) -> None:
    graph = draw(PAIRS).graph
    both, stored, rounded = pairs_of(graph)
    assert both.quantize is graph[0] and both.dequantize == (graph[1], graph[5])
    assert both.nodes == (graph[0], graph[1], graph[5])
    assert both.is_activation and both.tensor is graph.inputs[0]
    assert [node.op_type for node in both.readers()] == ["Relu"]
    assert stored.quantize is None and stored.nodes == (graph[8],)
    assert stored.tensor is stored.stored is graph.initializers["stored"] and not stored.is_activation
    assert rounded.quantize is graph[10] and rounded.tensor is graph.initializers["kept"]
    assert rounded.readers() == [graph[12]]


def floats(rows: str, inputs: int, outputs: int) -> str:
    return f"""g (float[n, {rows}, {inputs}] x, float[{inputs}, {outputs}] given) => (float[a, b, c] y)
        {{ w = Identity (given) y = MatMul (x, w) }}"""


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "alone"),
    [("1", 64, 64, True), ("16", 64, 64, False), ("16", 2, 64, True), ("16", 64, 2, True)],
)
def test_tiny_products_and_single_rows_are_left_alone(
    draw: Draw, rows: str, inputs: int, outputs: int, alone: bool
) -> None:
    graph = draw(floats(rows, inputs, outputs)).graph
    graph.initializers.add(graph.inputs.pop(1))
    graph.initializers["given"].const_value = ir.tensor([[1.0] * outputs] * inputs)
    product = only_product(graph)
    assert is_left_alone(product, graph) is alone
    assert reads_one_row(product, graph) is (rows == "1")


def test_quantized_weights_and_products_of_activations_are_not_left_alone(draw: Draw) -> None:
    graph = draw(MOVED).graph
    assert not is_left_alone(only_product(graph), graph)
    both = draw("g (float[n, 2, 2] x) => (float[n, 2, 2] y) { y = MatMul (x, x) }").graph
    assert not is_left_alone(only_product(both), both)


@pytest.mark.parametrize(
    ("product", "axis"),
    [
        ("d = Identity (w) y = MatMul (x, d)", 1),
        ("d = Transpose (w) y = MatMul (x, d)", 0),
        ("d = Transpose <perm = [1, 0]> (w) y = Gemm (x, d)", 0),
        ("d = Identity (w) y = Gemm <transB = 1> (x, d)", 0),
        ("d = Identity (w) y = MatMul (d, x)", 0),
        ("d = Identity (w) y = Gemm <transA = 1> (d, x)", 1),
        ("d = Reshape (w, shape) y = MatMul (x, d)", None),
    ],
)
def test_the_axis_of_the_results_is_followed_into_the_stored_weights(
    draw: Draw, product: str, axis: int | None
) -> None:
    graph = draw(
        f"""g (float[2, 2] x) => (float[2, 2] y) <int8[2, 2] stored = {{1, 2, 3, 4}}, float[2] scales = {{1, 2}},
        int64[2] shape = {{2, 2}}> {{ w = DequantizeLinear <axis = 1> (stored, scales) {product} }}"""
    ).graph
    found = only_product(graph)
    assert found.weight is not None and output_axis(found, found.weight) == axis


BLOCKS = """g (float[n, 32] x) => (float[n, 2] y)
    <int4[32, 2] stored = {FILLED}, float[2, 2] scales = {1, 2, 3, 4}, float scale = {0.5}, int8 zero = {0}> {
        BEFORE
        w = DequantizeLinear <axis = 0, block_size = 16> (stored, scales)
        y = MatMul (m, w)
    }""".replace("FILLED", ", ".join("1" * 64))


@pytest.mark.parametrize(
    ("text", "dequantized"),
    [
        (MOVED, 1),
        (MOVED.replace("MatMul (m, w)", "MatMul (r, w)").replace("Reshape (d, flat)", "Reshape (x, flat)"), 1),
        (BLOCKS.replace("BEFORE", "m = Relu (x)"), 0),
        (BLOCKS.replace("BEFORE", "q = QuantizeLinear (x, scale, zero) m = DequantizeLinear (q, scale, zero)"), 1),
        ("g (float[n, 2] x, float[2, 2] w) => (float[n, 2] y) { y = MatMul (x, w) }", 0),
    ],
    ids=["both", "INT8 weights alone", "INT4 blocks alone", "INT4 and INT8", "floats"],
)
def test_what_is_dequantized_where_there_are_no_integer_kernels(draw: Draw, text: str, dequantized: int) -> None:
    assert len(dequantized_products([only_product(draw(text).graph)])) == dequantized
