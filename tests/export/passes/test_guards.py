"""A Clip that cuts nothing stands behind a product that is split, and behind no other."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.export.passes.guards import guard_split_products

PARTS = """s, t, u = Split <axis = 2, num_outputs = 3> (r)
        a = Relu (s) b = Neg (t) c = Add (a, b) y = Add (c, u)"""


def split(
    behind: str = PARTS, product: str = "m = MatMul (d, w) v = Add (m, bias)", result: str = "float[n, 2, 2]"
) -> str:
    integers = ", ".join(str(number % 15 - 7) for number in range(24))
    return f"""g (float[n, 2, 4] x) => ({result} y)
    <float scale = {{0.25}}, int8 zero = {{0}}, int8[4, 6] stored = {{{integers}}}, int64[3] shape = {{0, 2, 6}},
     float[6] scales = {{0.5, 0.25, 1.0, 0.5, 0.5, 0.5}}, float[6] bias = {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0}}> {{
        q = QuantizeLinear (x, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        w = DequantizeLinear <axis = 1> (stored, scales)
        {product}
        r = Reshape (v, shape)
        {behind}
    }}"""


@pytest.mark.parametrize("product", ["m = MatMul (d, w) v = Add (m, bias)", "v = MatMul (d, w)"])
def test_the_guard_changes_no_number(through, noise, product) -> None:
    found = through(guard_split_products, split(product=product), x=noise(3, 2, 4))
    assert found.changed
    assert [kind for kind in found.operators[1] if kind not in found.operators[0]] == ["Clip"]
    assert found.operators[1].index("Clip") == found.operators[1].index("Reshape") - 1
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    clip = next(node for node in found.model.graph if node.op_type == "Clip")
    largest = np.finfo(np.float32).max
    assert [float(value.const_value.numpy()) for value in clip.inputs[1:]] == [-largest, largest]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (split("y = Relu (r)", result="float[n, 2, 6]"), "the product is not split"),
        (split("a = Relu (r) b = Neg (r) y = Add (a, b)", result="float[n, 2, 6]"), "the product is not split"),
        (
            split(
                PARTS.replace("b = Neg (t)", "b = QuantizeLinear (t, scale, zero)").replace(
                    "c = Add (a, b)", "e = DequantizeLinear (b, scale, zero) c = Add (a, e)"
                )
            ),
            "is quantized",
        ),
        (split(product="m = Identity (w) e = MatMul (d, m) v = Add (e, bias)"), "does not read a product"),
        (split(product="e = MatMul (d, w) m = Add (e, bias) v = Relu (m)"), "does not read a product"),
    ],
)
def test_other_products_stay_and_say_why(through, noise, text, why) -> None:
    found = through(guard_split_products, text, x=noise(3, 2, 4))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason
