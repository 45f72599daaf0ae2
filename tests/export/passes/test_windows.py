"""A tape before a quantizing chain, which then quantizes what the tape made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_ir.tape import Tape

from fimaq_deploy.export.passes.windows import start_with
from fimaq_deploy.graph.edit import broken_order, stored_axes

GRAPH = """g (float[2, 4] x) => (float[a, b] y)
    <float scale = {0.5}, int8 zero = {0}, float low = {-1}, float high = {1.5}> {
        c = Clip (x, low, high)
        q = QuantizeLinear (c, scale, zero)
        y = DequantizeLinear (q, scale, zero)
    }"""


@pytest.mark.parametrize("first", [0, 1])
def test_the_chain_quantizes_the_new_tensor_in_its_shape(draw: Callable[[str], ir.Model], first: int) -> None:
    """first: where the chain begins, at its Clip or, where that belongs to somebody else, behind it."""
    model = draw(GRAPH)
    graph, tape = model.graph, Tape()
    chain = list(graph)[first:]
    value = tape.op("Unsqueeze", [chain[0].inputs[0], stored_axes(graph, [1])])
    start_with(graph, chain, tape, value, [2, 1, 4])
    assert [node.op_type for node in graph].index("Unsqueeze") == first
    assert chain[0].inputs[0] is value and value.dtype is ir.DataType.FLOAT
    assert [step.outputs[0].shape for step in chain] == [[2, 1, 4]] * len(chain) and value.shape == [2, 1, 4]
    assert list(broken_order(graph)) == []
    x = np.array([[-3, -0.3, 0.3, 0.8], [0.1, 1.1, 1.4, 9]], np.float32)
    graph.outputs[0].shape = None
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    np.testing.assert_array_equal(found, np.rint(x.clip(-1, 1.5) / 0.5)[:, None] * np.float32(0.5))
