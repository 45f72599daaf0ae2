"""Only rows that nobody reads go: the same numbers, in real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from fimaq_deploy.engines import load_engine
from fimaq_deploy.export.first_row import drop_unread_rows
from fimaq_deploy.verify.stages import compare_stages


@pytest.fixture
def whole(every_row) -> Path:
    return every_row("onnxruntime-cpu")


def spared(source: Path, path: Path) -> ir.Model:
    """The file with the pass applied, saved at `path`."""
    model = ir.load(source)
    drop_unread_rows(model.graph)
    ir.save(model, path)
    return model


def test_everything_behind_the_last_attention_computes_one_row(whole, exported, images, tmp_path):
    model = spared(whole, tmp_path / "spared.onnx")
    assert {node.name for node in ir.load(exported("class-token")[1]).graph} == {node.name for node in model.graph}
    slices = [node for node in model.graph if node.op_type == "Slice" and "first_row" in node.outputs[0].name]
    assert [node.name for node in slices] == ["parts.1.proj.quantize/Slice", "parts.1/Slice_3"]
    product = next(node for node in model.graph if node.name == "parts.1.proj/MatMul")
    assert [list(value.shape)[1] for value in (product.inputs[0], product.outputs[0])] == [1, 1]
    files = (whole, tmp_path / "spared.onnx")
    before, after = (load_engine(file, optimisations=False, threads=1)(images.numpy()) for file in files)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_parity_judges_the_rows_that_are_there(exported, images, tmp_path):
    quantized, path = exported("class-token")
    report = compare_stages(quantized, path, images, threads=1)
    assert report.first_parting is None and report.agreement == 1
    assert max(stage.relative_difference for stage in report.stages) < 1e-4


@pytest.mark.parametrize("name", ["w8a8", "w4a16"])
def test_where_all_rows_are_read_all_stay(exported, tmp_path, name):
    before = ir.load(exported(name)[1])
    after = spared(exported(name)[1], tmp_path / "same.onnx")
    assert [node.name for node in after.graph] == [node.name for node in before.graph]


def test_a_second_reader_keeps_its_rows(whole):
    """As in a distilled DeiT, whose heads read two tokens."""
    model = ir.load(whole)
    gather = next(node for node in model.graph if node.name == "parts.2/Gather")
    model.graph.outputs.append(gather.inputs[0])
    before = [node.name for node in model.graph]
    drop_unread_rows(model.graph)
    assert [node.name for node in model.graph] == before
