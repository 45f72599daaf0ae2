from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from fixtures.bare_onnx import write_bare

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph_calibration.upgrade import to_current_opset, widen


@pytest.mark.parametrize("opset", [17, 20, 21, 22, 23])
def test_every_opset_becomes_21_and_keeps_its_numbers(opset: int, tmp_path: Path) -> None:
    model = ir.load(write_bare(tmp_path / "own.onnx", opset=opset))
    stored = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    made = to_current_opset(model)
    assert made.graph.opset_imports[""] == 21
    assert all((made.graph.initializers[name].const_value.numpy() == array).all() for name, array in stored.items())


def test_what_came_later_is_named(tmp_path: Path) -> None:
    def newer(model) -> None:
        norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
        norm.op_type = "RMSNormalization"
        del norm.input[2]

    with pytest.raises(UserError, match=r"RMSNormalization .* came with opset 23"):
        to_current_opset(ir.load(write_bare(tmp_path / "own.onnx", opset=23, change=newer)))


def test_half_precision_is_widened_everywhere(tmp_path: Path) -> None:
    model = ir.load(write_bare(tmp_path / "own.onnx", half=True))
    assert widen(model)
    kinds = {value.dtype for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())}
    assert kinds == {ir.DataType.FLOAT, ir.DataType.INT64}
    assert not widen(model)
