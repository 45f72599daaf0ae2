"""4-bit floats in blocks, written for who executes them and for who does not: the same numbers in both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import trace
from fimaq_deploy.export.passes.nvfp4 import VENDOR_OPERATOR, dynamic_spelled_out
from fimaq_deploy.export.qdq import Traced
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.verify.stages import compare_stages
from fimaq_deploy.verify.stored_weights import differing_weights

RTX = "tensorrt-rtx"


@pytest.fixture(scope="module")
def made(tiny_vit: Callable[..., Any], random_images: Callable[..., Any]) -> tuple[QuantizedModel, Traced]:
    recipe = Recipe.load("nvfp4").replace(reconstruction={"iterations": 2, "images": 8}, tuning={"iterations": 1})
    quantized = quantize(tiny_vit(num_classes=24, img_size=48), random_images(8, size=48), recipe, RTX)
    assert quantized.left_alone == {}
    return quantized, trace(quantized)


def test_the_spelled_out_file_computes_what_torch_does(
    made: tuple[QuantizedModel, Traced], random_images: Callable[..., Any], tmp_path: Path
) -> None:
    quantized, traced = made
    quantized.save(tmp_path / "quantized.safetensors")
    common = traced.write(tmp_path / "model.onnx")
    assert differing_weights(tmp_path / "quantized.safetensors", common) == []
    report = compare_stages(quantized, common, random_images(4, size=48))
    assert report.first_parting is None and report.largest_output_difference < 1e-4
    assert {node.domain for node in ir.load(common).graph} == {""}


def test_the_vendors_file_has_its_operator_and_the_types_of_the_standard(
    made: tuple[QuantizedModel, Traced], tmp_path: Path
) -> None:
    common, own = made[1].write(tmp_path / "model.onnx"), made[1].write(tmp_path / "model.rtx.onnx", RTX)
    graph = ir.load(own).graph
    assert sum(node.op_type == VENDOR_OPERATOR for node in graph) == 8
    assert graph.opset_imports == {"": 23, "trt": 1}
    packed = [value for value in graph.initializers.values() if value.dtype is ir.DataType.FLOAT4E2M1]
    assert len(packed) == 8 and differing_weights(common, own) == []
    assert [finding for finding in lint(own, RTX) if finding.severity == "error"] == []


def test_an_older_opset_is_refused(made: tuple[QuantizedModel, Traced], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4-bit floats, which came with opset 23"):
        made[1].write(tmp_path / "model.onnx", RTX, 21)


def test_stored_blocks_are_what_the_standard_says() -> None:
    """`DequantizeLinear` of FLOAT4E2M1 in ONNX's evaluator: every value under many scales."""
    values = np.resize(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 0], np.float32), (32, 5))
    scales = np.array([2**-9, 0.0625, 1.125, 30, 448], np.float32)[None].repeat(2, 0)
    kinds = {"q": onnx.TensorProto.FLOAT4E2M1, "s": onnx.TensorProto.FLOAT8E4M3FN, "g": onnx.TensorProto.FLOAT}
    arrays = {"q": values, "s": scales, "g": np.array(2.0**-7, np.float32)}
    stored = [helper.make_tensor(name, kinds[name], each.shape, each.flatten()) for name, each in arrays.items()]
    nodes = [
        helper.make_node("DequantizeLinear", ["s", "g"], ["f"]),
        helper.make_node("DequantizeLinear", ["q", "f"], ["y"], axis=0, block_size=16),
    ]
    graph = helper.make_graph(nodes, "w", [], [helper.make_tensor_value_info("y", 1, [32, 5])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    few = (torch.from_numpy(each).to(torch.float8_e4m3fn) for each in (values, scales))
    ours = torch.ops.fimaq.dequantize_weight_nvfp4(*few, torch.tensor(2.0**-7), 16)
    assert np.array_equal(ReferenceEvaluator(model).run(None, {})[0], ours.numpy())


def test_the_spelled_out_rounding_is_torchs_for_every_value_and_tie() -> None:
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 5.999, 0.2499, 3.501])
    block = torch.cat([ties, -ties[:5], torch.tensor([6.0])])
    x = torch.stack([block * scale for scale in (0.0, 1.0, 0.3, 1e-6, 40.0, 7e4)])[None]
    scale = helper.make_tensor("g", 1, [], [0.25])
    zero = helper.make_tensor("z", onnx.TensorProto.FLOAT4E2M1, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "g", "z"], ["q"], "m/QuantizeLinear", axis=-1, block_size=16),
        helper.make_node("DequantizeLinear", ["q", "g", "z"], ["d"], "m/DequantizeLinear", axis=-1, block_size=16),
        helper.make_node("Identity", ["d"], ["y"], "m/Identity"),
    ]
    ends = [[helper.make_tensor_value_info(name, 1, ["N", 6, 16])] for name in "xy"]
    inside = [helper.make_tensor_value_info("d", 1, ["N", 6, 16])]
    graph = helper.make_graph(nodes, "pair", *ends, initializer=[scale, zero], value_info=inside)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert dynamic_spelled_out(model)
    found = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x.numpy()})[0]
    ours = torch.ops.fimaq.quantize_dequantize_nvfp4(x, torch.tensor(0.25), 16)
    assert np.array_equal(found, ours.numpy()) and not ours[0, 0].any()
