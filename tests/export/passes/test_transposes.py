"""A Transpose goes before what quantizes, where one scale holds for all."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.transposes import transpose_before_quantizing


def moved(behind: str, scale: str = "scale", result: str = "float[n, 3, 2]", outputs: str = "") -> str:
    zero = "zeros" if scale == "many" else "zero"
    return f"""g (float[n, 2, 3] x) => ({result} y{outputs})
    <float scale = {{0.5}}, float low = {{-1.0}}, float high = {{1.0}}, int8 zero = {{3}},
     float[2] many = {{0.5, 0.25}}, int8[2] zeros = {{0, 0}}> {{
        clipped = Clip (x, low, high)
        q = QuantizeLinear (clipped, {scale}, {zero})
        d = DequantizeLinear (q, {scale}, {zero})
        {behind}
    }}"""


def test_clip_and_quantizers_follow_the_transpose(through, noise) -> None:
    found = through(
        transpose_before_quantizing, moved("t = Transpose <perm = [0, 2, 1]> (d) y = Relu (t)"), x=noise(2, 2, 3)
    )
    assert found.changed
    assert found.operators[1] == ["Transpose", "Clip", "QuantizeLinear", "DequantizeLinear", "Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    assert all(list(node.outputs[0].shape)[1:] == [3, 2] for node in found.model.graph)


def test_one_transpose_behind_another(through, noise) -> None:
    text = moved(
        "t = Transpose <perm = [0, 2, 1]> (d) u = Transpose <perm = [2, 1, 0]> (t) y = Relu (u)",
        result="float[2, 3, n]",
    )
    found = through(transpose_before_quantizing, text, x=noise(2, 2, 3))
    assert found.operators[1] == ["Transpose", "Transpose", "Clip", "QuantizeLinear", "DequantizeLinear", "Relu"]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (moved("t = Transpose <perm = [0, 2, 1]> (x) y = Relu (t)"), "does not read a quantized tensor"),
        (
            moved("t = Transpose <perm = [0, 2, 1]> (d) y = Relu (t) z = Relu (d)", outputs=", float[n, 2, 3] z"),
            "not alone to read it",
        ),
        (moved("y = Transpose <perm = [0, 2, 1]> (d)"), "it makes an output"),
        (moved("t = Transpose <perm = [0, 2, 1]> (d) y = Relu (t)", scale="many"), "a scale for each channel"),
    ],
)
def test_other_transposes_stay_and_say_why(through, noise, text, why) -> None:
    found = through(transpose_before_quantizing, text, x=noise(2, 2, 3))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason
