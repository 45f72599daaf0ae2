"""Convolutions whose windows tile the image become products, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.patches import patches_as_product

IMAGE = "float[n, 2, 4, 6]"


def convolution(
    attributes: str = "strides = [2, 2]",
    *,
    image: str = IMAGE,
    kernels: tuple[int, ...] = (3, 2, 2, 2),
    behind: str = "y = Identity (c)",
    result: str = "float[n, 3, 2, 3]",
    clip: str = "x",
    axis: int = 0,
    scale: str = "{0.5}",
) -> str:
    integers = ", ".join(str(number % 15 - 7) for number in range(int(np.prod(kernels))))
    scales = ", ".join(str(0.5 + number) for number in range(kernels[axis]))
    return f"""g ({image} x) => ({result} y)
    <float scale = {scale}, float low = {{-1.0}}, float high = {{1.5}}, int8 zero = {{0}},
     int8[{",".join(map(str, kernels))}] stored = {{{integers}}},
     float[{kernels[axis]}] scales = {{{scales}}}, float[{kernels[0]}] bias = {{{scales[: scales.rfind(",")]}, 9.0}}> {{
        clipped = Clip (x, low, high)
        q = QuantizeLinear ({clip}, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        w = DequantizeLinear <axis = {axis}> (stored, scales)
        c = Conv <{attributes}> (d, w, bias)
        {behind}
    }}"""


def test_windows_are_cut_before_they_are_quantized(through, noise) -> None:
    found = through(patches_as_product, convolution(clip="clipped"), x=noise(3, 2, 4, 6))
    assert found.changed
    assert found.operators[1] == [
        *("Reshape", "Transpose", "Reshape", "Clip", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear"),
        *("MatMul", "Add", "Transpose", "Identity"),
    ]
    np.testing.assert_allclose(found.results[1][0], found.results[0][0], atol=1e-5)
    assert found.model.graph.initializers["stored"].shape == [8, 3]


SWIN = "y = Transpose <perm = [0, 2, 3, 1]> (c)"
VIT = "shape = Constant <value_ints = [0, 3, 6]> () r = Reshape (c, shape) y = Transpose <perm = [0, 2, 1]> (r)"


@pytest.mark.parametrize(
    ("behind", "result", "tail"),
    [
        (SWIN, "float[n, 2, 3, 3]", ["MatMul", "Add", "Transpose", "Transpose"]),
        (VIT, "float[n, 6, 3]", ["Reshape", "Reshape", "Transpose"]),
    ],
)
def test_whoever_moves_the_channels_last_reads_the_product_directly(through, noise, behind, result, tail) -> None:
    found = through(patches_as_product, convolution(behind=behind, result=result), x=noise(2, 2, 4, 6))
    assert found.model.graph.outputs[0].name == "y"
    assert found.model.graph.outputs[0].producer().op_type in ("Add", "Reshape")
    np.testing.assert_allclose(found.results[1][0], found.results[0][0], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (convolution("strides = [1, 1]", result="float[n, 3, 3, 5]"), "overlap or leave pixels out"),
        (convolution("strides = [3, 3]", result="float[n, 3, 1, 2]"), "overlap or leave pixels out"),
        (convolution("strides = [2, 2], group = 2", kernels=(4, 1, 2, 2), result="float[n, 4, 2, 3]"), "only some"),
        (convolution("strides = [2, 2], pads = [0, 0, 2, 0]", result="float[n, 3, 3, 3]"), "it pads the image"),
        (convolution('strides = [2, 2], auto_pad = "SAME_UPPER"'), "it pads the image"),
        (convolution("strides = [2, 2], dilations = [1, 2]", result="float[n, 3, 2, 2]"), "its windows have holes"),
        (convolution(image="float[n, 2, 5, 6]"), "does not divide into windows"),
        (convolution(image="float[n, 2, h, w]", result="float[n, 3, a, b]"), "its size is not known"),
        (convolution(clip="clipped", behind="e = ReduceMax <keepdims = 0> (d) y = Add (c, e)"), "something else reads"),
        (convolution(behind="y = Identity (c)").replace("c = Conv", "y = Conv").replace("y = Id", "e = Id"), "output"),
        (convolution(scale="{0.5}").replace("(d, w, bias)", "(x, w, bias)"), "its images are not quantized"),
    ],
)
def test_other_convolutions_stay_and_say_why(through, noise, text, why) -> None:
    text = text.replace("e = Identity (c)", "e = Identity (y)")
    height = 5 if "5, 6" in text.partition("x)")[0] else 4
    found = through(patches_as_product, text, x=noise(2, 2, height, 6))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason


def test_weights_that_are_floats_or_have_a_scale_for_each_input_stay(draw) -> None:
    text = convolution(axis=1)
    assert list(patches_as_product.obstacles(draw(text)).values()) == [
        "its weights have no scale for each output channel"
    ]
    floats = convolution().replace("int8[3,2,2,2] stored", "float[3,2,2,2] w").replace("w = Dequ", "unused = Dequ")
    floats = floats.replace("unused = DequantizeLinear <axis = 0> (stored, scales)", "")
    assert list(patches_as_product.obstacles(draw(floats)).values()) == ["its weights are not stored integers"]
