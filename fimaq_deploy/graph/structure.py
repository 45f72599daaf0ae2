"""What a QDQ graph computes, whoever wrote it: matrix products with their operands, and attention.

Exporters put the same attention down in many ways: the scale on q, on k, on both or on the scores, a mask by Add or
Where, Reshape, Transpose and Slice anywhere between. So an operand is followed back through what only moves or scales
numbers, and attention is found from its softmax, backwards to q·kᵀ and forwards to the product with v.

Not covered: attention written as one operator (`Attention`, `MultiHeadAttention`) or as Einsum, and quantizers inside
the branches of If and Loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.target import LEAST_PRODUCT

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# The first input is the data, of Concat all are.
MOVES = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_SAME_NUMBERS = MOVES | {"Cast"}
_ON_INTEGERS = MOVES | {"Clip"}
_SCALINGS = frozenset({"Div", "Mul"})
_ELEMENTWISE = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Where"})
# What may stand between q·kᵀ, the softmax and the product with v.
_AROUND_SOFTMAX = _SAME_NUMBERS | _ELEMENTWISE | QUANTIZERS | {"Clip", "Dropout"}
_NOT_DATA = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Operand:
    """One side of a product.

    dequantizer: the DequantizeLinear that it comes from, None where it is a float.
    stored: the constant behind it, None where it is computed.
    steps: the nodes between the dequantizer or the constant and the product, the product's neighbour first.
    """

    value: ir.Value
    dequantizer: ir.Node | None
    stored: ir.Value | None
    steps: tuple[ir.Node, ...]

    @property
    def is_activation(self) -> bool:
        return self.stored is None


@dataclass(frozen=True)
class Product:
    """A MatMul, Gemm or Conv and its two operands."""

    node: ir.Node
    operands: tuple[Operand, Operand]

    @property
    def weight(self) -> Operand | None:
        """The operand that the file stores, None where both are computed."""
        return next((operand for operand in reversed(self.operands) if not operand.is_activation), None)

    @property
    def activations(self) -> tuple[Operand, ...]:
        return tuple(operand for operand in self.operands if operand.is_activation)

    @property
    def is_integer(self) -> bool:
        """Whether both operands are quantized."""
        return all(operand.dequantizer is not None for operand in self.operands)

    @property
    def sizes(self) -> tuple[int | None, int | None]:
        """The length of the sums (K) and the columns of the result (N) of a MatMul or Gemm; None where not known."""
        columns_first = self.node.op_type == "Gemm" and bool(self.node.attributes.get_int("transB", 0))
        rows, columns = dimension(self.operands[1].value, -2), dimension(self.operands[1].value, -1)
        return (columns, rows) if columns_first else (rows, columns)


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


@dataclass(frozen=True)
class Pair:
    """A quantized tensor: a QuantizeLinear with every DequantizeLinear behind it, or either alone.

    stored: the constant that it quantizes, None for an activation.
    """

    quantize: ir.Node | None
    dequantize: tuple[ir.Node, ...]
    stored: ir.Value | None

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return self.dequantize if self.quantize is None else (self.quantize, *self.dequantize)

    @property
    def tensor(self) -> ir.Value | None:
        """What is quantized."""
        return self.stored or self.nodes[0].inputs[0]

    @property
    def is_activation(self) -> bool:
        return self.stored is None

    def readers(self) -> list[ir.Node]:
        """The nodes that read the dequantized numbers, moved or not."""
        return [node for each in self.dequantize for node in readers(each.outputs[0])]


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
    products = [_product(node) for node in graph if node.op_type in PRODUCTS]
    attentions = [_attention(node) for node in graph if node.op_type == "Softmax"]
    return Structure(
        graph=graph,
        opset=opset,
        pairs=tuple(_pairs(graph)),
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


def is_left_alone(product: Product, graph: ir.Graph) -> bool:
    """Whether a product with stored weights is in floats and gains nothing from integers: tiny, or one row an image."""
    weight = product.weight
    if weight is None or weight.dequantizer is not None:
        return False
    return _is_tiny(weight.value) or reads_one_row(product, graph)


def _is_tiny(weights: ir.Value) -> bool:
    """Whether a matrix, or a convolution's kernels, have few inputs or outputs."""
    sizes = [size for size in weights.shape or () if isinstance(size, int)]
    if len(sizes) != len(weights.shape or ()) or len(sizes) < 2:
        return False
    return min(sizes if len(sizes) == 2 else (sizes[0], math.prod(sizes[1:]))) < LEAST_PRODUCT


def reads_one_row(product: Product, graph: ir.Graph) -> bool:
    """Whether a product multiplies one row an image: at a batch of one, a vector and a matrix."""
    if product.node.op_type == "Conv" or not product.activations:
        return False
    shape, images = (value.shape for value in (product.activations[0].value, graph.inputs[0]))
    if not shape or not images or len(shape) < 2 or shape.is_unknown_dim(0):
        return False
    return shape[0] == images[0] and all(size == 1 for size in shape[1:-1])


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant behind a value, None where it is computed or an input."""
    return None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """A stored constant as an array."""
    tensor = stored_tensor(value)
    return None if tensor is None else tensor.numpy()


def dimension(value: ir.Value, axis: int) -> int | None:
    """One size of a tensor, None where it is not known before the graph runs."""
    shape = value.shape
    if shape is None or len(shape) < (-axis if axis < 0 else axis + 1):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def integer_type(quantizer: ir.Node) -> ir.DataType | None:
    """The type of the integers that a QuantizeLinear writes or a DequantizeLinear reads."""
    zero_point = input_of(quantizer, 2)
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if quantizer.op_type == "DequantizeLinear":
        return quantizer.inputs[0].dtype if quantizer.inputs[0] is not None else None
    return ir.DataType(quantizer.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)


def stored_integers(dequantizer: ir.Node) -> ir.Value | None:
    """The constant that a DequantizeLinear reads: integers, or floats that a QuantizeLinear before it rounds."""
    before = _quantizer_before(dequantizer)
    value = (before or dequantizer).inputs[0]
    return value if stored_tensor(value) is not None else None


def operand(value: ir.Value) -> Operand:
    """Follow a value back to the DequantizeLinear or the constant that it is."""
    steps: list[ir.Node] = []
    at: ir.Value = value
    while (node := producer(at)) is not None:
        if node.op_type == "DequantizeLinear":
            return Operand(value, node, stored_integers(node), tuple(steps))
        before = _carried(node)
        if before is None:
            break
        steps.append(node)
        at = before
    return Operand(value, None, at if stored_tensor(at) is not None else None, tuple(steps))


def _carried(node: ir.Node) -> ir.Value | None:
    """The input whose numbers, moved or scaled, are a node's output."""
    if node.op_type in _SAME_NUMBERS:
        return node.inputs[0]
    if node.op_type in _SCALINGS:
        sides = [value for value in node.inputs if value is not None and not _is_scalar(value)]
        return sides[0] if len(sides) == 1 else None
    return None


def _is_scalar(value: ir.Value) -> bool:
    return value.shape is not None and all(size == 1 for size in value.shape) and len(value.shape) < 2


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read a value's numbers, moved or not."""
    for use in value.uses():
        node = use.node
        if node.op_type in MOVES and (use.idx == 0 or node.op_type == "Concat"):
            for output in node.outputs:
                yield from readers(output)
        elif node.op_type not in _NOT_DATA:
            yield node


def output_axis(product: Product, weight: Operand) -> int | None:
    """The axis of the stored weights that runs along the product's result; None where it is not known."""
    shape = weight.value.shape
    if shape is None or len(shape) < 2:
        return None
    axis = _axis_at(product.node, product.operands.index(weight), len(shape))
    for step in weight.steps:
        if step.op_type == "Transpose":
            order = step.attributes.get_ints("perm", None) or list(reversed(range(len(shape))))
            axis = order[axis]
        elif step.op_type in MOVES and step.op_type != "Identity":
            return None
    return axis


def _axis_at(node: ir.Node, index: int, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = bool(node.attributes.get_int("transB" if index else "transA", 0))
        return int(transposed != bool(index))
    return rank - 1 if index else rank - 2


def sources(value: ir.Value) -> set[ir.Node]:
    """The products whose results, moved, scaled, shifted or quantized, a value is."""
    return set(_search_back(value, lambda node: node.op_type in PRODUCTS))


def _pairs(graph: ir.Graph) -> Iterator[Pair]:
    for node in graph:
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0]
            stored = source if stored_tensor(source) is not None else None
            yield Pair(node, tuple(_dequantizers(node.outputs[0])), stored)
        elif node.op_type == "DequantizeLinear" and _quantizer_before(node) is None:
            yield Pair(None, (node,), stored_integers(node))


def _dequantizers(integers: ir.Value) -> Iterator[ir.Node]:
    """The DequantizeLinears that read integers, clipped and moved or not."""
    for use in integers.uses():
        if use.node.op_type == "DequantizeLinear" and use.idx == 0:
            yield use.node
        elif use.node.op_type in _ON_INTEGERS:
            for output in use.node.outputs:
                yield from _dequantizers(output)


def _quantizer_before(dequantizer: ir.Node) -> ir.Node | None:
    node = producer(dequantizer.inputs[0])
    while node is not None and node.op_type in _ON_INTEGERS:
        node = producer(node.inputs[0])
    return node if node is not None and node.op_type == "QuantizeLinear" else None


def _product(node: ir.Node) -> Product | None:
    left, right = node.inputs[:2]
    return None if left is None or right is None else Product(node, (operand(left), operand(right)))


def _attention(softmax: ir.Node) -> Attention | None:
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


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
