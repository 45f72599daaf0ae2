"""A module becomes a graph once: a symbolic batch, the names of its ends, one opset. Its silence: test_qdq."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from fimaq_deploy.calibration.quantizers import ops as _ops  # noqa: F401  (registers torch.ops.fimaq)
from fimaq_deploy.export.tracing import INPUT, OPSET, OUTPUT, count_weights, trace_module


class TwoWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("q", torch.arange(-8, 8, dtype=torch.int8).reshape(4, 4))
        self.register_buffer("scale", torch.full((4,), 0.125))
        self.register_buffer("blocks", torch.full((2, 4), 0.25))

    def forward(self, images: Tensor) -> Tensor:
        x = images @ torch.ops.fimaq.dequantize_weight(self.q, self.scale, 1)
        x = torch.ops.fimaq.quantize_dequantize(x, self.scale[0], 0, -8, 7)
        return x @ torch.ops.fimaq.dequantize_weight_blocked(self.q, self.blocks, 2)


@pytest.fixture(scope="module")
def program() -> Any:
    return trace_module(TwoWeights().eval(), (3, 4))


def test_the_ends_have_names_and_the_batch_alone_is_open(program: Any) -> None:
    graph = program.model.graph
    ((given,), (made,)) = graph.inputs, graph.outputs
    assert (given.name, made.name) == (INPUT, OUTPUT)
    assert isinstance(given.shape[0], ir.SymbolicDim) and given.shape[1:] == (3, 4) == made.shape[1:]
    assert graph.opset_imports[""] == OPSET


def test_any_batch_gives_the_modules_numbers(program: Any) -> None:
    model = ir.passes.common.InlinePass()(program.model.clone()).model
    run = ReferenceEvaluator(ir.to_proto(model))
    for batch in (1, 5):
        images = torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(batch))
        (found,) = run.run(None, {INPUT: images.numpy()})
        np.testing.assert_allclose(found, TwoWeights()(images).numpy(), rtol=1e-6)


def test_stored_tensors_that_are_dequantized_are_counted(program: Any) -> None:
    assert count_weights(program.exported_program) == 2
    assert count_weights(torch.export.export(nn.ReLU(), (torch.zeros(2, 3),))) == 0


def test_errors_of_the_exporter_stay_exceptions_and_logging_comes_back() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise KeyError("the module's own mistake")

    before = logging.root.manager.disable
    with pytest.raises(Exception, match="the module's own mistake"):
        trace_module(Broken(), (3,))
    assert logging.root.manager.disable == before
