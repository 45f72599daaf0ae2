"""Attention between integers gets float16, and only where it cannot overflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from fixtures.versions import quantizes_float16_exactly

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.engines import load_engine
from fimaq_deploy.export import trace
from fimaq_deploy.export.passes.float16_attention import attention_in_float16
from fimaq_deploy.target import find_target

SHAPE = (3, 8, 8)
HALF, FLOAT, BFLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.BFLOAT16
WIDE = replace(find_target("tensorrt-rtx"), high_precision="bfloat16")


def types(graph: ir.Graph) -> dict[str | None, ir.DataType | None]:
    """Of the first operand of every node."""
    return {node.name: node.inputs[0].dtype for node in graph if node.inputs[0] is not None}


@pytest.mark.parametrize("name", ["w8a8", "w4a4"])
def test_everything_between_the_integers_and_nothing_else_is_float16(exported, tmp_path, name):
    graph = ir.load(trace(exported(name)[0], SHAPE).write(tmp_path / "wide.onnx", WIDE)).graph
    found = types(graph)
    half = {node for node, dtype in found.items() if dtype is HALF}
    inside = {"Add", "Div", "MatMul", "Mul", "QuantizeLinear", "Reshape", "Softmax", "Transpose"}
    assert {"parts.1/MatMul", "parts.1/Softmax", "parts.1/MatMul_1"} <= half
    assert {str(node).partition("/")[2].partition("_")[0] for node in half} <= inside
    assert found["parts.1.proj.quantize/QuantizeLinear"] is HALF, "it reads what attention computes"
    assert found["parts.1.proj/MatMul"] is found["parts.1.qkv/MatMul"] is BFLOAT


@quantizes_float16_exactly
def test_attention_in_float16_answers_alike(exported, images, tmp_path):
    """ONNX Runtime's CPU has no bfloat16, so float32 surrounds the island here."""
    model, path = exported("w8a8")
    file = ir.load(path)
    attention_in_float16(file)
    assert types(file.graph)["parts.1/Softmax"] is HALF
    ir.save(file, tmp_path / "island.onnx")
    with torch.no_grad():
        expected = model(images).numpy()
    found = load_engine(tmp_path / "island.onnx", optimisations=False, threads=1)(images.numpy())
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(("largest_score", "dtype"), [(65000, HALF), (66000, FLOAT)])
def test_attention_that_may_overflow_is_left_as_it_is(exported, largest_score, dtype):
    """Sums of 16 products of two integers of 128 at most, times two scales."""
    model = ir.load(exported("w8a8")[1])
    scale = np.float32((largest_score / 16) ** 0.5 / 128)
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and "parts.1.operands" in str(node.name):
            node.inputs[1].const_value = ir.tensor(scale, name=node.inputs[1].name)
    why = attention_in_float16.obstacles(model)
    assert attention_in_float16(model) is (dtype is HALF) is (why == {})
    assert types(model.graph)["parts.1/Softmax"] is dtype
    assert why == {} or why == {"parts.1/Softmax": "values may reach 66000, float16 holds 65504"}


def test_attention_in_floats_is_no_island(exported):
    model = ir.load(exported("w4a16")[1])
    before = types(model.graph)
    (why,) = attention_in_float16.obstacles(model).values()
    assert "/MatMul stands between it and the integers around attention" in why
    assert not attention_in_float16(model)
    assert types(model.graph) == before


def test_float_attention_behind_a_quantized_product_is_left_as_it_is(tiny_vit, random_images, quick_recipe, tmp_path):
    """As outside a target's envelope: qkv multiplies integers, q·kᵀ floats."""
    recipe = quick_recipe(attention={"quantize": "never"}, reconstruction={"iterations": 0})
    traced = trace(quantize(tiny_vit(), random_images(4), recipe, "tensorrt-rtx"))
    graph = ir.load(traced.write(tmp_path / "wide.onnx", WIDE)).graph
    assert {found for name, found in types(graph).items() if "Softmax" in str(name)} == {BFLOAT}
    assert HALF not in types(graph).values()


def test_half_precision_constants_are_stored_in_execution_order(exported, tmp_path):
    """And not in the order of a set, which is another one in each process."""
    path = trace(exported("w8a8")[0], SHAPE).write(tmp_path / "wide.onnx", WIDE)
    graph = ir.load(path).graph
    read = dict.fromkeys(value.name for node in graph for value in node.inputs if value is not None)
    half = [name for name in read if name.endswith(".float16")]
    assert len(half) > 2
    assert [name for name in graph.initializers if name.endswith(".float16")] == half
