"""Attention, whoever wrote it.

Exporters put the same attention down in many ways: the scale on q, on k, on both or on the scores, a mask by Add or
Where, Reshape, Transpose and Slice anywhere between. So it is found from its softmax, backwards to q·kᵀ and forwards to
the product with v.

Not covered: attention written as one operator (`Attention`, `MultiHeadAttention`) or as Einsum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from fimaq_deploy.graph.products import SAME_NUMBERS, Operand, operand
from fimaq_deploy.graph.values import PRODUCTS, QUANTIZERS, dimension, producer

_ELEMENTWISE = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Where"})
# What may stand between q·kᵀ, the softmax and the product with v.
_AROUND_SOFTMAX = SAME_NUMBERS | _ELEMENTWISE | QUANTIZERS | {"Clip", "Dropout"}


@dataclass(frozen=True)
class Attention:
    """softmax(q kᵀ) v. The operands are as the two products read them."""

    scores: ir.Node
    softmax: ir.Node
    context: ir.Node
    q: Operand
    k: Operand
    v: Operand
    weights: Operand

    @property
    def parts(self) -> dict[str, Operand]:
        return {"q": self.q, "k": self.k, "v": self.v, "the softmax output": self.weights}

    @property
    def head_size(self) -> int | None:
        return _first(dimension(self.q.value, -1), dimension(self.k.value, -2))

    @property
    def tokens(self) -> int | None:
        """The longer of the two sequences."""
        lengths = dimension(self.q.value, -2), dimension(self.k.value, -1)
        known = [length for length in lengths if length is not None]
        return max(known) if len(known) == 2 else None


def attention_of(softmax: ir.Node) -> Attention | None:
    """The attention around a softmax; None where it is another softmax."""
    if softmax.inputs[0] is None:
        return None
    scores = next(_search_back(softmax.inputs[0], _multiplies_activations), None)
    found = _search_forward(softmax.outputs[0], _multiplies_activations)
    if scores is None or found is None or scores is found[0]:
        return None
    context, index = found
    q, k, first, second = (operand(value) for value in (*scores.inputs[:2], *context.inputs[:2]) if value is not None)
    v, weights = (first, second) if index else (second, first)
    return Attention(scores, softmax, context, q, k, v, weights)


def _multiplies_activations(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and all(operand(v).is_activation for v in node.inputs if v is not None)


def _search_back(value: ir.Value, wanted: Callable[[ir.Node], bool]) -> Iterator[ir.Node]:
    """The wanted nodes that a value is made from, the nearest first. Nothing is searched beyond them."""
    waiting, seen = deque([producer(value)]), set[ir.Node]()
    while waiting:
        node = waiting.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        if wanted(node):
            yield node
        elif node.op_type in _AROUND_SOFTMAX:
            waiting.extend(producer(before) for before in _data_inputs(node))


def _data_inputs(node: ir.Node) -> tuple[ir.Value | None, ...]:
    if node.op_type == "Where":
        return tuple(node.inputs[1:])
    return tuple(node.inputs) if node.op_type in _ELEMENTWISE or node.op_type == "Concat" else tuple(node.inputs[:1])


def _search_forward(value: ir.Value, wanted: Callable[[ir.Node], bool]) -> tuple[ir.Node, int] | None:
    """The nearest wanted node that a value reaches, and by which input."""
    waiting, seen = deque(value.uses()), set[ir.Node]()
    while waiting:
        node, index = waiting.popleft()
        if wanted(node):
            return node, index
        if node not in seen and node.op_type in _AROUND_SOFTMAX:
            seen.add(node)
            waiting.extend(use for output in node.outputs for use in output.uses())
    return None


def sources(value: ir.Value) -> set[ir.Node]:
    """The products whose results, moved, scaled, shifted or quantized, a value is."""
    return set(_search_back(value, lambda node: node.op_type in PRODUCTS))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
