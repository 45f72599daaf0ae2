"""Parity of a model with itself, and of a model whose file was made from other numbers."""

from __future__ import annotations

import onnx
import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.export import check_grids, compare_stages, parity
from fimaq_deploy.export.inspection import load_graph


def test_stages_agree_with_the_file(exported, images):
    model, _ = exported("w4a4")
    report = compare_stages(model, images, threads=1)
    assert [stage.name for stage in report.stages] == ["patch_embed", "blocks.0", "head"]
    assert report.first_parting is None and report.agreement == 1
    assert max(stage.relative_difference for stage in report.stages) < 1e-4
    assert report.largest_logit_difference < 1e-4


def test_the_first_stage_that_parts_is_named(exported, images, monkeypatch):
    model, _ = exported("w4a4")
    export = parity.export_onnx

    def export_of_another_bias(quantized, path, **options):
        bias = quantized.parts[1].proj.bias
        before = bias.detach().clone()
        with torch.no_grad():
            bias[0] += 5
        try:
            return export(quantized, path, **options)
        finally:
            bias.data.copy_(before)

    monkeypatch.setattr(parity, "export_onnx", export_of_another_bias)
    report = compare_stages(model, images, threads=1)
    assert report.first_parting is not None and report.first_parting.name == "blocks.0"
    # The head got the file's own tokens, so it does not part, while the whole chain does.
    assert report.stages[2].differing_share < 0.01 < report.stages[2].accumulated_share


def test_weights_are_compared_exactly(exported, tmp_path):
    _, path = exported("w8a8")
    model = onnx.load(path)
    changed = next(tensor for tensor in model.graph.initializer if tensor.name == "parts.1.qkv.q")
    changed.raw_data = bytes([changed.raw_data[0] ^ 1]) + changed.raw_data[1:]
    onnx.save(model, tmp_path / "changed.onnx")
    assert parity.differing_weights(path, path) == []
    assert parity.differing_weights(path, tmp_path / "changed.onnx") == ["parts.1.qkv.q"]


def test_a_file_that_is_no_model_is_a_user_error(tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("text.onnx", "none.onnx"):
        with pytest.raises(UserError, match=name):
            load_graph(tmp_path / name)


def test_grids_list_every_quantized_tensor_in_order(exported):
    nodes = [tensor.node.split("/")[0] for tensor in check_grids(exported("w8a8")[1])]
    assert set(nodes[:4]) == {"parts.0.quantize", "parts.0", "parts.1.qkv.quantize", "parts.1.qkv"}
    assert len(nodes) == len(set(nodes)) == 12
