"""Matrix products with their operands, and quantized tensors, whoever wrote them.

Exporters put a scale, a Reshape, Transpose and Slice anywhere between a tensor and the product that reads it. So an
operand is followed back through what only moves or scales numbers.

Not covered: products inside Einsum, and quantizers inside the branches of If and Loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from fimaq_deploy.graph.edit import unwidened
from fimaq_deploy.graph.values import MOVES, dimension, integer_type, producer, readers, stored_tensor
from fimaq_deploy.target import LEAST_PRODUCT

SAME_NUMBERS = MOVES | {"Cast"}
_ON_INTEGERS = MOVES | {"Clip"}
_SCALINGS = frozenset({"Div", "Mul"})
_INT4 = frozenset({ir.DataType.INT4, ir.DataType.UINT4})


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


def product_of(node: ir.Node) -> Product | None:
    """A MatMul, Gemm or Conv with its operands; None where it lacks one."""
    left, right = node.inputs[:2]
    return None if left is None or right is None else Product(node, (operand(left), operand(right)))


def is_weight_only_int4(product: Product) -> bool:
    """Whether a product multiplies floats by a stored INT4 weight in blocks, which runtimes keep packed."""
    weight = product.weight
    if weight is None or weight.dequantizer is None or any(each.dequantizer for each in product.activations):
        return False
    return integer_type(weight.dequantizer) in _INT4 and weight.dequantizer.attributes.get_int("block_size", 0) > 0


def is_quantized(product: Product) -> bool:
    """Whether one of its operands is."""
    return any(each.dequantizer for each in product.operands)


def dequantized_products(products: Iterable[Product]) -> list[Product]:
    """Those that a runtime without integer kernels dequantizes operands for in every run."""
    return [one for one in products if is_quantized(one) and not is_weight_only_int4(one)]


def pairs_of(graph: ir.Graph) -> Iterator[Pair]:
    """The quantized tensors of a graph, in execution order."""
    for node in graph:
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0]
            stored = source if stored_tensor(source) is not None else None
            yield Pair(node, tuple(_dequantizers(node.outputs[0])), stored)
        elif _makes_scales(node):
            continue
        elif node.op_type == "DequantizeLinear" and _quantizer_before(node) is None:
            yield Pair(None, (node,), stored_integers(node))


def _makes_scales(node: ir.Node) -> bool:
    """Whether what a node dequantizes are the scales of blocks, and no numbers of their own."""
    uses = node.outputs[0].uses() if node.op_type == "DequantizeLinear" else ()
    return bool(uses) and all(use.node.op_type == "DequantizeLinear" and use.idx == 1 for use in uses)


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


def stored_integers(dequantizer: ir.Node) -> ir.Value | None:
    """The constant that a DequantizeLinear reads: integers, or floats that a QuantizeLinear before it rounds."""
    before = _quantizer_before(dequantizer)
    value = unwidened((before or dequantizer).inputs[0])
    assert value is not None, f"{dequantizer.name} reads nothing"
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
    if node.op_type in SAME_NUMBERS:
        return node.inputs[0]
    if node.op_type in _SCALINGS:
        sides = [value for value in node.inputs if value is not None and not _is_scalar(value)]
        return sides[0] if len(sides) == 1 else None
    return None


def _is_scalar(value: ir.Value) -> bool:
    return value.shape is not None and all(size == 1 for size in value.shape) and len(value.shape) < 2


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
