"""A file that is not what an export promises is our bug, whatever the passes did."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from fimaq_deploy.export.passes.standard import require_standard

TEXT = """g (float[n, 2] x) => (float[n, 2] y)
<int8[2, 2] stored = {1, 2, 3, 4}, float[2] scales = {0.5, 0.25}> {
    w = DequantizeLinear <axis = 1> (stored, scales)
    y = MatMul (x, w)
}"""


def test_stored_integers_are_counted_where_products_read_them(draw) -> None:
    require_standard(draw(TEXT), 1)
    with pytest.raises(RuntimeError, match="1 of 2 weight tensors stayed integers"):
        require_standard(draw(TEXT), 2)
    moved = TEXT.replace("y = MatMul (x, w)", "v = Identity (w) y = MatMul (x, v)")
    with pytest.raises(RuntimeError, match="0 of 1 weight tensors stayed integers"):
        require_standard(draw(moved), 1)


def test_other_domains_and_other_types_outside(draw) -> None:
    model = draw(TEXT)
    model.graph[1].domain, model.graph.outputs[0].dtype = "com.example", ir.DataType.FLOAT16
    with pytest.raises(RuntimeError, match=r"operators of other domains: \['com.example'\].*not float32: \['y'\]"):
        require_standard(model, 0)
