"""Layers rewritten as products that every runtime computes in integers."""

from __future__ import annotations

import onnx_ir as ir

from fimaq_deploy.export.integer_products import rows_as_batch


def test_a_value_whose_name_another_takes_over_is_never_left_without_one() -> None:
    """onnx-ir before 1.1 takes a value without a name for an output that nobody wants, and refuses to remove it."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 4] x) => (float[n, 4] logits)
        <float scale = {0.5}, int8 zero = {0}, int8[4, 4] stored = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2},
         float[4] scales = {1.0, 2.0, 3.0, 4.0}> {
            q = QuantizeLinear (x, scale, zero)
            rows = DequantizeLinear (q, scale, zero)
            weight = DequantizeLinear <axis = 1> (stored, scales)
            logits = MatMul (rows, weight)
        }"""
    )
    model = ir.passes.common.ShapeInferencePass()(model).model
    rows_as_batch(model.graph)
    assert [node.op_type for node in model.graph][-2:] == ["MatMul", "Squeeze"]
    assert all(value.name for node in model.graph for value in node.outputs)
    assert [value.name for value in model.graph.outputs] == ["logits"]
