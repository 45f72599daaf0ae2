"""A PyTorch module as an ONNX graph. torch comes in here and in `translate`, and nowhere else in this room."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.export.translate import TRANSLATIONS

OPSET = 21
INPUT, OUTPUT = "images", "logits"

_WEIGHT_OPERATORS = (
    torch.ops.fimaq.dequantize_weight.default,
    torch.ops.fimaq.dequantize_weight_blocked.default,
    torch.ops.fimaq.dequantize_weight_nvfp4.default,
)


def trace_module(module: nn.Module, shape: Sequence[int]) -> Any:
    """torch's own exporter, once, with a batch of 2 and a symbolic batch dimension. Nothing is optimised.

    shape: of one image.
    """
    # Constants are folded on the host, and a graph from there is the same.
    if any(not is_host(tensor.device) for tensor in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: "batch"},),
            input_names=[INPUT],
            output_names=list(getattr(module, "outputs", (OUTPUT,))),
            custom_translation_table=TRANSLATIONS,
            optimize=False,
            verbose=False,
        )


def count_weights(program: torch.export.ExportedProgram) -> int:
    """How many stored tensors a program dequantizes."""
    return sum(node.target in _WEIGHT_OPERATORS for node in program.graph.nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about what it handles itself; its errors stay exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
