"""Weights in blocks are packed, and no integer changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.export.passes.int4 import pack_behind_cast, pack_channels, pack_int4


def blocks(last: int = 7, block: str = "axis = 0, block_size = 16", scales: str = "float[1, 2]") -> str:
    integers = ", ".join(str(number % 16 - 8) for number in range(31))
    return f"""g (float[n, 16] x) => (float[n, 2] y)
    <int8[16, 2] stored = {{{integers}, {last}}}, {scales} scales = {{0.5, 0.25}}> {{
        w = DequantizeLinear <{block}> (stored, scales)
        y = MatMul (x, w)
    }}"""


def test_the_same_integers_take_half_the_bytes(through, noise) -> None:
    found = through(pack_int4, blocks(), x=noise(2, 16))
    weights = found.model.graph.initializers["stored"]
    assert found.changed and found.operators[0] == found.operators[1]
    assert (weights.dtype, weights.const_value.nbytes) == (ir.DataType.INT4, 16)
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (blocks(8), "integers from -8 to 8 need more than 4 bits"),
        (blocks(-9), "integers from -9 to 7 need more than 4 bits"),
        (blocks(block="axis = 1", scales="float[2]"), "it has no blocks"),
    ],
)
def test_others_stay_as_they_are_and_say_why(through, noise, text, why) -> None:
    found = through(pack_int4, text, x=noise(2, 16))
    assert not found.changed
    assert found.model.graph.initializers["stored"].dtype is ir.DataType.INT8
    assert list(found.obstacles.values()) == [why]


def test_integers_that_are_not_stored_stay(draw) -> None:
    text = """g (int8[16, 2] x) => (float[16, 2] y) <float[1, 2] scales = {0.5, 0.25}> {
        y = DequantizeLinear <axis = 0, block_size = 16> (x, scales)
    }"""
    assert list(pack_int4.obstacles(draw(text)).values()) == ["what it reads is not stored"]


CHANNELS = blocks(block="axis = 1", scales="float[2]")


@pytest.mark.parametrize(("step", "between"), [(pack_behind_cast, ["Cast"]), (pack_channels, [])])
def test_a_scale_for_each_channel_allows_it_too(through, noise, step, between) -> None:
    found = through(step, CHANNELS, x=noise(2, 16))
    weights = found.model.graph.initializers["stored"]
    assert (weights.dtype, weights.const_value.nbytes) == (ir.DataType.INT4, 16)
    assert found.operators[1] == [*between, *found.operators[0]]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (blocks(8, block="axis = 1", scales="float[2]"), "integers from -8 to 8 need more than 4 bits"),
        (blocks(), "it has blocks"),
        (
            CHANNELS.replace("(stored, scales)", "(stored, scales, zeros)").replace(
                "{0.5, 0.25}", "{0.5, 0.25}, int8[2] zeros = {0, 0}"
            ),
            "its zero point is of the type of its integers",
        ),
        (
            CHANNELS.replace("y = MatMul (x, w)", "other = Identity (stored)  y = MatMul (x, w)"),
            "something else reads its integers",
        ),
    ],
)
def test_what_keeps_a_byte_an_integer_says_why(through, noise, text, why) -> None:
    found = through(pack_behind_cast, text, x=noise(2, 16))
    assert not found.changed and list(found.obstacles.values()) == [why]
