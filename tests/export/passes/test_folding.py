"""Constants are folded, quantized ones are not."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.export.passes.folding import LARGEST_CONSTANT, fold_constants


def test_constants_fold_and_stored_integers_stay(through, noise) -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y)
    <float[2] a = {1.0, 2.0}, int8[2, 2] stored = {1, 2, 3, 4}, float[2] scales = {0.5, 0.25}> {
        b = Add (a, a)
        c = Mul (b, a)
        w = DequantizeLinear <axis = 1> (stored, scales)
        m = MatMul (x, w)
        y = Add (m, c)
    }"""
    found = through(fold_constants, text, x=noise(2, 2))
    assert found.changed and found.operators[1] == ["DequantizeLinear", "MatMul", "Add"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


def test_what_is_computed_twice_is_computed_once(through, noise) -> None:
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Relu (x) b = Relu (x) y = Add (a, b) }"
    found = through(fold_constants, text, x=noise(2, 2))
    assert found.changed and found.operators[1] == ["Relu", "Add"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


def test_constants_that_would_become_huge_are_left_to_the_runtime(draw) -> None:
    side = int(LARGEST_CONSTANT**0.5) + 1
    text = f"""g (float[{side}, {side}] x) => (float[{side}, {side}] y)
    <float one = {{1.0}}, int64[2] shape = {{{side}, {side}}}> {{
        big = Expand (one, shape)
        y = Add (x, big)
    }}"""
    model = draw(text)
    fold_constants(model)
    assert [node.op_type for node in model.graph] == ["Expand", "Add"]
