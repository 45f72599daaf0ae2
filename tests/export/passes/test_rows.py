"""A product of two axes gets a third one, and the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.export.passes.rows import rows_as_batch


def head(behind: str = "logits = MatMul (rows, weight)", rank: str = "n, 4", scale: str = "scale") -> str:
    return f"""g (float[{rank}] x) => (float[{rank}] logits)
    <float scale = {{0.5}}, float[4] many = {{0.5, 0.5, 0.25, 0.5}}, int8 zero = {{0}},
     int8[4] zeros = {{0, 0, 0, 0}}, float[4] bias = {{1.0, 2.0, 3.0, 4.0}}, float[4] scales = {{1.0, 2.0, 3.0, 4.0}},
     int8[4, 4] stored = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2}}> {{
        q = QuantizeLinear (x, {scale}, {"zeros" if scale == "many" else "zero"})
        rows = DequantizeLinear (q, {scale}, {"zeros" if scale == "many" else "zero"})
        weight = DequantizeLinear <axis = 1> (stored, scales)
        {behind}
    }}"""


@pytest.mark.parametrize(
    ("behind", "last"),
    [
        ("logits = MatMul (rows, weight)", ["MatMul", "Squeeze"]),
        ("y = MatMul (rows, weight) logits = Add (y, bias)", ["MatMul", "Add", "Squeeze"]),
        ("y = MatMul (rows, weight) z = Add (y, bias) logits = Relu (z)", ["MatMul", "Add", "Squeeze", "Relu"]),
        ("y = MatMul (rows, weight) z = Relu (y) logits = Add (y, z)", ["MatMul", "Squeeze", "Relu", "Add"]),
    ],
)
def test_the_axis_stands_between_unsqueeze_and_squeeze(through, noise, behind, last) -> None:
    found = through(rows_as_batch, head(behind), x=noise(3, 4, scale=5))
    assert found.changed
    assert found.operators[1] == ["Unsqueeze", "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", *last]
    np.testing.assert_array_equal(found.results[1][0], found.results[0][0])
    product = next(node for node in found.model.graph if node.op_type == "MatMul")
    assert [len(value.shape) for value in (product.inputs[0], product.outputs[0])] == [3, 3]
    # onnx-ir before 1.1 takes a value without a name for an output that nobody wants, and refuses to remove it.
    assert all(value.name for node in found.model.graph for value in node.outputs)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (head(rank="n, 3, 4"), "not two axes"),
        (head("logits = MatMul (x, weight)"), "its input is not quantized"),
        (head("y = Relu (rows) z = MatMul (rows, weight) logits = Add (y, z)"), "or something else reads it"),
        (head("logits = MatMul (rows, rows)"), "something else reads it"),
        (head("f = Identity (weight) logits = MatMul (rows, f)"), "not a matrix of stored integers"),
        (head(scale="many"), "a scale for each channel"),
    ],
)
def test_other_products_stay_and_say_why(through, noise, text, why) -> None:
    shape = (4, 3, 4) if "3, 4] x" in text else (4, 4)
    found = through(rows_as_batch, text, x=noise(*shape))
    assert not found.changed and found.operators[0] == found.operators[1]
    (reason,) = found.obstacles.values()
    assert why in reason


def test_the_output_keeps_its_name(draw) -> None:
    model = draw(head())
    rows_as_batch(model)
    (output,) = model.graph.outputs
    assert output.name == "logits" and isinstance(output, ir.Value)
