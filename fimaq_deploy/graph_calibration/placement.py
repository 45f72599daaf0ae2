"""QuantizeLinear and DequantizeLinear in a graph, as the exporter of modules writes them.

    x → [Clip] → QuantizeLinear → DequantizeLinear → product,   stored integers → DequantizeLinear → product

A file of a target then comes of it through the same passes (`export.passes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, IntegerRange
from fimaq_deploy.graph.edit import read_at, stored, typed
from fimaq_deploy.graph_calibration.parts import Layer, bias_of


@dataclass(frozen=True)
class Site:
    """One tensor that is quantized.

    readers: who reads it in integers: (node, place). moments: whether stored weights multiply it.
    """

    name: str
    value: str
    readers: tuple[tuple[str, int], ...]
    grid: ActivationGrid
    nonnegative: bool = False
    weighted: bool = False


@dataclass(frozen=True)
class Scale:
    """What a site's quantizer computes with."""

    scale: float
    span: IntegerRange


@dataclass(frozen=True, eq=False)
class Integers:
    """The weights of a layer: integers as the file stores them, their scales, and its bias, None where it has none.

    weights: [in, out], of a convolution its kernels. scales: [out], or [in / block, out].
    """

    weights: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    block_size: int | None = None


def quantize_graph(
    graph: ir.Graph,
    sites: Mapping[Site, Scale],
    layers: Sequence[tuple[Layer, Integers]],
) -> None:
    """Put all of them into a graph in which they are found by their names."""
    nodes = {str(node.name): node for node in graph}
    for site, scale in sites.items():
        _quantize(graph, nodes, site, scale)
    for layer, integers in layers:
        _store(graph, nodes, layer, integers)


def _quantize(graph: ir.Graph, nodes: Mapping[str, ir.Node], site: Site, scale: Scale) -> None:
    found = [(nodes[node], place) for node, place in site.readers if node in nodes]
    if not found:
        return
    value, span = read_at(*found[0]), scale.span
    container = np.int8 if span.fits_int8 else np.uint8
    step = stored(graph, f"{site.name}.scale", np.array(scale.scale, np.float32))
    zero = stored(graph, f"zero_{np.dtype(container).name}_{span.zero_point}", np.array(span.zero_point, container))
    chain, at = [], value
    if not span.saturates_alone:
        low, high = (
            stored(graph, f"{site.name}.{name}", np.array(scale.scale * (end - span.zero_point), np.float32))
            for name, end in (("low", span.low), ("high", span.high))
        )
        chain.append(_node(site, "Clip", [at, low, high], ir.DataType.FLOAT, value.shape))
        at = chain[-1].outputs[0]
    kind = ir.DataType.INT8 if span.fits_int8 else ir.DataType.UINT8
    chain.append(_node(site, "QuantizeLinear", [at, step, zero], kind, value.shape))
    chain.append(_node(site, "DequantizeLinear", [chain[-1].outputs[0], step, zero], ir.DataType.FLOAT, value.shape))
    graph.insert_before(_first(graph, [node for node, _ in found]), chain)
    for node, place in found:
        node.replace_input_with(place, chain[-1].outputs[0])


def _first(graph: ir.Graph, nodes: Iterable[ir.Node]) -> ir.Node:
    wanted = set(nodes)
    return next(node for node in graph if node in wanted)


def _node(site: Site, kind: str, inputs: list[ir.Value], dtype: ir.DataType, shape: ir.Shape | None) -> ir.Node:
    name = f"{site.name}/{kind}"
    output = typed(ir.Value(name=name), dtype, shape)
    return ir.Node("", kind, inputs, outputs=[output], name=name)


def _store(graph: ir.Graph, nodes: Mapping[str, ir.Node], layer: Layer, integers: Integers) -> None:
    node = nodes.get(layer.node)
    if node is None:
        return
    axis = 0 if layer.kernel or integers.block_size else 1
    weights = stored(graph, f"{layer.name}.q_weight", integers.weights)
    scales = stored(graph, f"{layer.name}.q_scale", integers.scales)
    attributes = {"axis": axis, **({"block_size": integers.block_size} if integers.block_size else {})}
    name = f"{layer.name}/DequantizeLinear"
    output = typed(ir.Value(name=name), ir.DataType.FLOAT, ir.Shape(integers.weights.shape))
    dequantize = ir.node("DequantizeLinear", [weights, scales], attributes=attributes, outputs=[output], name=name)
    graph.insert_before(node, dequantize)
    node.replace_input_with(1, output)
    if integers.bias is not None and layer.bias is not None:
        add = nodes[layer.bias]
        for place, _ in bias_of(add):
            add.replace_input_with(place, stored(graph, f"{layer.name}.q_bias", integers.bias))
    elif integers.bias is not None and layer.kernel and len(node.inputs) > 2:
        node.replace_input_with(2, stored(graph, f"{layer.name}.q_bias", integers.bias))
