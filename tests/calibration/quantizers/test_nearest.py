"""Rounding to each format: every value, every tie and what lies beyond, against ONNX Runtime and ONNX's evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from fimaq_deploy.calibration.quantizers.nearest import above, below, levels, nearest, spacing
from fimaq_deploy.export.opset import DEFAULT_OPSET, FLOAT4_OPSET
from fimaq_deploy.target.numbers import E4M3, FORMATS, FloatFormat

EACH = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def telling(form: FloatFormat) -> Tensor:
    """Every value, every tie and its float neighbours, and numbers of all sizes."""
    known = levels(form)
    ties = (known[1:] + known[:-1]) / 2
    beyond = torch.tensor([form.largest * 1.001, form.largest * 2, 1e30, torch.inf])
    beside = [torch.nextafter(ties, torch.full_like(ties, end)) for end in (-torch.inf, torch.inf)]
    random = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    sizes = torch.logspace(-12, 4, 20_000)
    return torch.cat([known, ties, *beside, beyond, -beyond, random, random * sizes, torch.tensor([-0.0, 1e-30])])


def pair(form: FloatFormat, scale: float) -> onnx.ModelProto:
    kind = getattr(onnx.TensorProto, form.onnx)
    stored = [
        helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("zero", kind, [], [0]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])] for name in "xy"]
    graph = helper.make_graph(nodes, "pair", *ends, initializer=stored)
    opset = DEFAULT_OPSET if form is E4M3 else FLOAT4_OPSET
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def as_written(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@EACH
@pytest.mark.parametrize("scale", [1.0, 0.203125, 2340 / 2**20])
def test_rounding_is_that_of_onnx_bit_for_bit(form: FloatFormat, scale: float) -> None:
    x = telling(form) * scale
    ours = torch.ops.fimaq.quantize_dequantize_float(x, torch.tensor(scale), form.name).numpy()
    assert np.array_equal(ours, ReferenceEvaluator(pair(form, scale)).run(None, {"x": x.numpy()})[0])
    if form is E4M3:  # ONNX Runtime's CPU provider has no kernel for 4-bit floats (1.31)
        assert np.array_equal(ours, as_written(pair(form, scale), x.numpy()))


@EACH
def test_rounding_is_to_the_nearest_value_and_ties_go_to_the_even_code(form: FloatFormat) -> None:
    known, x = levels(form), telling(form)
    distance = (x.clamp(-form.largest, form.largest)[:, None] - known).abs().double()
    assert torch.equal((nearest(x, form) - x.clamp(known[0], known[-1])).abs().double(), distance.amin(1))
    ties = (known[1:] + known[:-1]) / 2
    places = torch.searchsorted(known, nearest(ties, form)) - len(form.values) + 1
    assert (places % 2 == 0).all()
    assert nearest(torch.tensor([torch.nan]), E4M3).isnan().all()


@EACH
def test_neighbours_enclose_what_lies_between_them(form: FloatFormat) -> None:
    known, x = levels(form), telling(form)
    place = torch.searchsorted(known, x.clamp(known[0], known[-1]), right=True) - 1
    assert torch.equal(below(x, form), known[place])
    assert torch.equal(above(x, form), known[(place + 1).clamp(max=len(known) - 1)])


@EACH
def test_the_spacing_is_that_of_the_values_away_from_zero(form: FloatFormat) -> None:
    positive = torch.tensor(form.values)
    assert torch.equal(spacing(positive[:-1], form), positive.diff())
    assert torch.equal(spacing(-positive[:-1], form), positive.diff())
