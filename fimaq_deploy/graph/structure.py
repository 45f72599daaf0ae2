"""What a QDQ graph computes, whoever wrote it: quantized tensors, matrix products with their operands, and attention.

How they are found, and what is not covered: `fimaq_deploy.graph.products` and `fimaq_deploy.graph.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.attention import Attention, attention_of
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.graph.products import Pair, Product, pairs_of, product_of
from fimaq_deploy.graph.values import PRODUCTS


@dataclass(frozen=True)
class Structure:
    """A graph and what was found in it, in execution order."""

    graph: ir.Graph
    opset: int
    pairs: tuple[Pair, ...]
    products: tuple[Product, ...]
    attentions: tuple[Attention, ...]


def read_structure(path: str | Path, batch: int | None = None) -> Structure:
    """Read an ONNX file and find what it computes. Shapes are inferred where the file does not say them.

    batch: the first size of every input, so that no shape depends on it; None leaves it as the file has it.

    Raises:
        UserError: no such file, not an ONNX model, one without nodes, or one whose external data is missing.
    """
    model = load_model(path)
    if batch is not None:
        _fix_batch(model.graph, batch)
    graph = _prepared(model).graph
    opset = graph.opset_imports.get("") or graph.opset_imports.get("ai.onnx")
    if not len(graph) or opset is None:
        raise UserError(f"{path} holds no ONNX graph: name a complete .onnx file")
    products = [product_of(node) for node in graph if node.op_type in PRODUCTS]
    attentions = [attention_of(node) for node in graph if node.op_type == "Softmax"]
    return Structure(
        graph=graph,
        opset=opset,
        pairs=tuple(pairs_of(graph)),
        products=tuple(product for product in products if product is not None),
        attentions=tuple(attention for attention in attentions if attention is not None),
    )


def _fix_batch(graph: ir.Graph, batch: int) -> None:
    """Give every input its batch size, and forget the shapes that were written for any."""
    for value in graph.inputs:
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([batch, *value.shape[1:]])
    for node in graph:
        for output in node.outputs:
            output.shape = None


def _prepared(model: ir.Model) -> ir.Model:
    """Functions inlined, constants as initializers, types and shapes inferred."""
    if model.functions:
        model = passes.InlinePass()(model).model
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return passes.ShapeInferencePass(check_type=False, strict_mode=False)(model).model
