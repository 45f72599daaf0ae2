"""Clips of floats become Clips of integers, bit by bit the same."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.integer_clips import clip_integers


def clipped(
    low: float, high: float, zero: int = 0, kind: str = "int8", tail: str = "y = Relu (d)", **changes: str
) -> str:
    text = f"""g (float[n, 4] x) => (float[n, 4] y)
    <float scale = {{0.25}}, float low = {{{low}}}, float high = {{{high}}}, {kind} zero = {{{zero}}}> {{
        c = Clip (x, low, high)
        q = QuantizeLinear (c, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        {tail}
    }}"""
    for old, new in changes.items():
        assert f"{old} = " in text
        text = text.replace(f"{old} = Clip (x, low, high)", f"{old} = {new}")
    return text


@pytest.mark.parametrize(
    ("low", "high", "zero", "kind", "bounds"),
    [
        (-2.0, 1.75, 0, "int8", (-8, 7)),
        (-1.1, 1.1, 0, "int8", (-4, 4)),  # a bound between two integers rounds as what it cuts does
        (0.0, 3.75, -128, "int8", (-128, -113)),
        (-1.0, 2.75, 4, "uint8", (0, 15)),
        (-1000.0, 1000.0, 0, "int8", (-128, 127)),  # beyond the container
    ],
)
def test_what_is_cut_is_cut_to_the_same_integer(through, noise, low, high, zero, kind, bounds) -> None:
    found = through(clip_integers, clipped(low, high, zero, kind), x=noise(200, 4, scale=3))
    assert found.changed
    assert found.operators[1] == ["QuantizeLinear", "Clip", "DequantizeLinear", "Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    clip = found.model.graph[1]
    assert tuple(int(value.const_value.numpy()) for value in clip.inputs[1:]) == bounds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (clipped(-2, 1, c="Relu (x)"), "no Clip stands before it"),
        (clipped(-2, 1, tail="e = Relu (c) y = Add (d, e)"), "something else reads what is clipped"),
        (clipped(-2, 1, c="Clip (x, low)"), "not single stored numbers"),
        (clipped(-2, 1, c="Clip (x, , high)"), "not single stored numbers"),
    ],
)
def test_other_quantizers_stay_and_say_why(through, noise, text, why) -> None:
    found = through(clip_integers, text, x=noise(20, 4))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason


def test_integers_that_the_graph_returns_stay_its_output(draw) -> None:
    text = """g (float[n, 4] x) => (int8[n, 4] q)
    <float scale = {0.25}, float low = {-1.0}, float high = {1.0}, int8 zero = {0}> {
        c = Clip (x, low, high)
        q = QuantizeLinear (c, scale, zero)
    }"""
    assert list(clip_integers.obstacles(draw(text)).values()) == ["it makes an output of the graph"]
