"""Attention is found from its softmax, however the scale, the mask and the layout were put down."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from fimaq_deploy.graph.attention import Attention, attention_of, sources

Draw = Callable[[str], ir.Model]


def drawn(
    draw: Draw, scores: str = "s = Identity (qk)", weights: str = "a = Identity (p)", v: str = "a, v"
) -> ir.Graph:
    """Two heads of 8 channels, 5 queries and 7 keys."""
    shapes = "float[n, 2, 5, 8] q, float[n, 2, 8, 7] k, float[n, 2, 7, 8] v, bool[5, 7] mask"
    return draw(
        f"""g ({shapes}) => (float[n, 2, r, c] y)
        <float scale = {{0.25}}, float low = {{-1000}}, float step = {{0.5}}, int8 zero = {{0}}> {{
            qk = MatMul (q, k)
            {scores}
            p = Softmax <axis = -1> (s)
            {weights}
            y = MatMul ({v})
        }}"""
    ).graph


def found_in(graph: ir.Graph) -> Attention | None:
    (softmax,) = (node for node in graph if node.op_type == "Softmax")
    return attention_of(softmax)


@pytest.mark.parametrize(
    "scores",
    [
        "s = Identity (qk)",
        "s = Mul (qk, scale)",
        "d = Div (qk, scale) s = Where (mask, d, low)",
        "d = Where (mask, low, qk) s = Add (d, scale)",
        "d = QuantizeLinear (qk, step, zero) s = DequantizeLinear (d, step, zero)",
        "d = Max (qk, low) e = Cast <to = 10> (d) s = Cast <to = 1> (e)",
    ],
)
def test_it_is_found_through_scales_masks_casts_and_quantizers(draw: Draw, scores: str) -> None:
    graph = drawn(draw, scores)
    found = found_in(graph)
    assert found is not None
    assert (found.scores, found.context) == (graph[0], graph[-1])
    assert [part.value.name for part in (found.q, found.k, found.v)] == ["q", "k", "v"]
    assert found.weights.value is graph[-1].inputs[0]
    assert (found.head_size, found.tokens) == (8, 7)
    assert list(found.parts) == ["q", "k", "v", "the softmax output"]


def test_the_softmax_may_go_through_moves_and_stand_on_either_side(draw: Draw) -> None:
    graph = drawn(
        draw, weights="a = Transpose <perm = [0, 1, 3, 2]> (p) t = Transpose <perm = [0, 1, 3, 2]> (v)", v="t, a"
    )
    found = found_in(graph)
    assert found is not None and found.v.value.name == "t" and found.weights.value.name == "a"
    assert found.weights.steps[0].op_type == "Transpose"


def test_sizes_that_are_not_known_are_none(draw: Draw) -> None:
    graph = drawn(draw)
    for value in graph.inputs[:2]:
        value.shape = None
    found = found_in(graph)
    assert found is not None and (found.head_size, found.tokens) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        # Of a classifier: nothing reads it. Of a gate: no product before it. Of a mixture: weights are stored.
        "g (float[2, 2] x) => (float[2, 2] p) { qk = MatMul (x, x) p = Softmax (qk) }",
        "g (float[2, 2] x) => (float[2, 2] y) { p = Softmax (x) y = MatMul (p, x) }",
        "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}> "
        "{ l = MatMul (x, w) p = Softmax (l) y = MatMul (p, x) }",
        # Something that is no part of attention stands between.
        "g (float[2, 2] x) => (float[2, 2] y) { qk = MatMul (x, x) e = Exp (qk) p = Softmax (e) y = MatMul (p, x) }",
    ],
)
def test_another_softmax_is_no_attention(draw: Draw, text: str) -> None:
    assert found_in(draw(text).graph) is None


def test_a_softmax_of_nothing_is_no_attention(draw: Draw) -> None:
    graph = drawn(draw)
    graph[2].replace_input_with(0, None)
    assert found_in(graph) is None


def test_sources_are_the_products_behind_a_value_and_nothing_beyond_them(draw: Draw) -> None:
    graph = draw(
        """g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float step = {0.5}, int8 zero = {0}> {
            first = MatMul (x, w)
            second = MatMul (first, w)
            third = Gemm (first, w)
            sum = Add (second, third)
            q = QuantizeLinear (sum, step, zero)
            d = DequantizeLinear (q, step, zero)
            y = Transpose (d)
        }"""
    ).graph
    assert sources(graph.outputs[0]) == {graph[1], graph[2]}
    assert sources(graph[0].outputs[0]) == {graph[0]} and sources(graph.inputs[0]) == set()
