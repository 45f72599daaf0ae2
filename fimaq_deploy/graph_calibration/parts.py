"""What of a clean graph can be in integers: products with stored weights, and attentions, by their modules' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fimaq_deploy.calibration.network.rules import AttentionFacts, LayerFacts
from fimaq_deploy.graph.attention import Attention, attention_of
from fimaq_deploy.graph.edit import is_operator, maker, nodes_of, numpy_of, read_at, sizes
from fimaq_deploy.graph.products import product_of, reads_one_row
from fimaq_deploy.graph.rules.placement import behind_mean
from fimaq_deploy.graph.values import MOVES
from fimaq_deploy.graph_calibration.names import module_of

_SUFFIXES = (".weight", ".bias")


@dataclass(frozen=True)
class Layer:
    """A MatMul with a stored matrix, or a convolution whose windows tile the image.

    node, value, bias: names: of the product, of what it reads, and of the Add of its stored bias (None without one).
    weight: [out, in], a kernel in the order channel, height, width. kernel: (height, width) of a convolution.
    """

    facts: LayerFacts
    node: str
    value: str
    bias: str | None
    weight: NDArray[np.float32]
    kernel: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True)
class Heads:
    """An attention; a size of 0 is not known.

    reads: of q, k, v and softmax: what is quantized, and who reads it: (node, place).
    """

    facts: AttentionFacts
    node: str
    reads: dict[str, tuple[str, tuple[str, int]]]

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True)
class Parts:
    """All of them, in the order of execution. others: products that stay as they are, each with the reason."""

    layers: tuple[Layer, ...]
    heads: tuple[Heads, ...]
    others: dict[str, str]


def find_parts(graph: ir.Graph) -> Parts:
    """Of a clean graph (`intake`)."""
    names = _Names(graph)
    layers, others = [], {}
    last = _last_products(graph)
    for node in nodes_of(graph, "MatMul", "Gemm", "Conv"):
        found = _layer(graph, node, names, node in last)
        if isinstance(found, Layer):
            layers.append(found)
        elif found is not None:
            others[names.of(node)] = found
    found_heads = (attention_of(node) for node in nodes_of(graph, "Softmax"))
    heads = [_heads(one, names) for one in found_heads if one is not None]
    return Parts(tuple(layers), tuple(heads), others)


class _Names:
    """A name for every product and attention, no two alike."""

    def __init__(self, graph: ir.Graph) -> None:
        self._count = Counter(_module(node) for node in nodes_of(graph, "MatMul", "Gemm", "Conv") if _weights(node))

    def of(self, node: ir.Node) -> str:
        name = _module(node)
        return str(node.name) if _weights(node) is not None and self._count[name] > 1 else name


def _module(node: ir.Node) -> str:
    """From the node's name, else from those of its weights or bias."""
    name = str(node.name)
    if "/" in name:
        return module_of(node)
    add = _bias(node)
    stored = (read_at(node, 1), *(value for value in (add.inputs if add else ()) if value is not None))
    told = [str(value.name) for value in stored if value.const_value is not None]
    return next((one.removesuffix(end) for one in told for end in _SUFFIXES if one.endswith(end)), name)


def _weights(node: ir.Node) -> ir.Value | None:
    value = read_at(node, 1)
    return value if value.const_value is not None else None


def _layer(graph: ir.Graph, node: ir.Node, names: _Names, is_last: bool) -> Layer | str | None:
    """A layer, why it stays as it is, or None for a product of two activations."""
    weights = numpy_of(node.inputs[1])
    if weights is None:
        stored = numpy_of(node.inputs[0])
        return None if stored is None else "its first operand is stored, not its second"
    if node.op_type == "Gemm":
        return "it transposes what it reads, or its bias is computed"
    kernel = None
    if node.op_type == "Conv":
        reason = _overlap(node, weights)
        if reason is not None:
            return reason
        kernel = (weights.shape[2], weights.shape[3])
        matrix = weights.reshape(len(weights), -1)
    elif weights.ndim != 2:
        return "its weights are no matrix"
    else:
        matrix = weights.T
    read = read_at(node, 0)
    if read.const_value is not None:
        return "both its operands are stored"
    add = _bias(node)
    facts = LayerFacts(
        name=names.of(node),
        inputs=matrix.shape[1],
        outputs=matrix.shape[0],
        convolution=kernel is not None,
        position=_position(graph, node, is_last),
        behind_mean=_reads_mean(graph, node),
    )
    bias = None if add is None else str(add.name)
    return Layer(facts, str(node.name), str(read.name), bias, np.ascontiguousarray(matrix, np.float32), kernel)


def _overlap(conv: ir.Node, weights: NDArray[np.float32]) -> str | None:
    attributes, kernel = conv.attributes, list(weights.shape[2:])
    plain = weights.ndim == 4 and list(attributes.get_ints("strides", [1, 1])) == kernel
    plain = plain and attributes.get_int("group", 1) == 1 and not any(attributes.get_ints("pads", []))
    plain = plain and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    plain = plain and set(attributes.get_ints("dilations", [1])) == {1}
    if not plain:
        return "a convolution whose windows overlap or see some of the channels: only those that tile an image are"
    if not all(isinstance(n, int) and n % k == 0 for n, k in zip(sizes(read_at(conv, 0))[2:], kernel, strict=True)):
        return "a convolution whose windows leave pixels out"
    return None


def _bias(node: ir.Node) -> ir.Node | None:
    """The Add of a stored vector behind a product, which nothing else reads."""
    out = node.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output():
        return None
    add = uses[0].node
    if not is_operator(add, "Add"):
        return None
    array = numpy_of(add.inputs[1 - uses[0].idx])
    return add if array is not None and array.ndim == 1 and array.dtype == np.float32 else None


def _position(graph: ir.Graph, node: ir.Node, is_last: bool) -> str | None:
    at = read_at(node, 0)
    while (before := at.producer()) is not None and before.op_type in MOVES | {"Pad"}:
        at = read_at(before, 0)
    if at in graph.inputs:
        return "patch_embed"
    product = product_of(node)
    return "head" if is_last and product is not None and reads_one_row(product, graph) else None


def _reads_mean(graph: ir.Graph, node: ir.Node) -> bool:
    product = product_of(node)
    return product is not None and reads_one_row(product, graph) and behind_mean(read_at(node, 0))


def _last_products(graph: ir.Graph) -> set[ir.Node]:
    """Those whose results reach no further one."""
    reaches = set[ir.Value]()
    last = set[ir.Node]()
    for node in reversed(list(graph)):
        ahead = any(value in reaches for value in node.outputs)
        product = is_operator(node, "MatMul", "Gemm", "Conv")
        if product and not ahead:
            last.add(node)
        if ahead or product:
            reaches.update(value for value in node.inputs if value is not None)
    return last


def _heads(found: Attention, names: _Names) -> Heads:
    scores, context = found.scores, found.context
    place = 0 if context.inputs[0] is found.weights.value else 1
    k, reader = read_at(scores, 1), (str(scores.name), 1)
    swap = maker(k, "Transpose")
    if swap is not None and _swaps_last(list(swap.attributes.get_ints("perm", []))) and len(k.uses()) == 1:
        k, reader = read_at(swap, 0), (str(swap.name), 0)
    reads = {
        "q": (str(read_at(scores, 0).name), (str(scores.name), 0)),
        "k": (str(k.name), reader),
        "v": (str(read_at(context, 1 - place).name), (str(context.name), 1 - place)),
        "softmax": (str(read_at(context, place).name), (str(context.name), place)),
    }
    facts = AttentionFacts(module_of(scores), found.head_size or 0, found.tokens or 0)
    return Heads(facts, str(scores.name), reads)


def _swaps_last(order: Iterable[int]) -> bool:
    axes = list(order)
    return len(axes) > 1 and axes == [*range(len(axes) - 2), len(axes) - 1, len(axes) - 2]


def bias_of(graph_node: ir.Node) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The stored vector of an Add, with its place."""
    for place, value in enumerate(graph_node.inputs):
        array = numpy_of(value)
        if array is not None and array.ndim == 1:
            yield place, array
