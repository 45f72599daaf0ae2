"""The least time that a graph can take on a machine: counted work over measured rates.

The roofline of Williams, Waterman and Patterson (CACM 52 (4), 2009): a program takes at least as long as its arithmetic
at the machine's rate, and at least as long as its traffic at the machine's bandwidth.

Counted are the multiplications and additions of MatMul, Gemm and Conv, by the type that they are done in (int8 where
both operands come from DequantizeLinear), and the bytes that any runtime has to move: every stored weight once, and
what each product reads and writes once, in the type that it is kept in between kernels. Norms, softmax, GELU, sums and
copies are taken to cost nothing, so no engine is faster than this and a good one comes near it on large matrices only.

Not covered: other operators than those three, attention written as one operator, branches, and several inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx_ir as ir

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.products import Product
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.graph.values import dimension, stored_tensor

INT8, FLOAT32, FLOAT16, FLOAT8, FLOAT4 = "int8", "float32", "float16", "float8", "float4"
_KINDS = {ir.DataType.FLOAT16: FLOAT16, ir.DataType.BFLOAT16: FLOAT16}


@dataclass(frozen=True)
class Work:
    """What one run of a graph has to do.

    operations: multiplications and additions by the type that they are done in.
    weight_bytes, activation_bytes: stored numbers that are read, and numbers that go from kernel to kernel.
    """

    operations: Mapping[str, int]
    weight_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: operations by type, and bytes that are moved (read and written)."""

    operations: Mapping[str, float]
    bytes_moved: float


def floor_ms(work: Work, rates: Rates) -> float:
    """The least time of one run. A type without a rate of its own is computed in float32, as CPUs do with float16."""
    rate = rates.operations
    arithmetic = sum(count / rate[kind if kind in rate else FLOAT32] for kind, count in work.operations.items())
    return 1000 * max(arithmetic, work.total_bytes / rates.bytes_moved)


def count_work(path: str | Path, batch: int) -> Work:
    """What a graph with one image input does for a batch.

    Raises:
        UserError: not an ONNX model, or a product whose shape the file does not determine.
    """
    structure = read_structure(path, batch)
    operations: Counter[str] = Counter()
    moved, weights = 0, dict[ir.Value, int]()
    for product in structure.products:
        operations[_kind(product)] += 2 * multiplications(path, product)
        moved += sum(_bytes_between(value, kind) for value, kind in _between(product))
        weights |= {each.stored: _stored_bytes(each.stored) for each in product.operands if each.stored is not None}
    return Work(dict(operations), sum(weights.values()), moved)


def _kind(product: Product) -> str:
    if product.is_integer:
        return INT8
    return _KINDS.get(product.node.outputs[0].dtype or ir.DataType.FLOAT, FLOAT32)


def multiplications(path: str | Path, product: Product) -> int:
    """Elements of the result times the length of the sum behind each."""
    results = _elements(product.node.outputs[0])
    if product.node.op_type == "Conv":
        shape = product.operands[1].value.shape
        length = prod(size for size in shape[1:] if isinstance(size, int)) if shape is not None else None
    else:
        length = product.sizes[0] or dimension(product.operands[0].value, -1)
    if results is None or length is None:
        raise UserError(f"{path}: the shape of {product.node.name} is not known before it runs: export it with shapes")
    return results * length


def _between(product: Product) -> Iterator[tuple[ir.Value, ir.DataType]]:
    """The activations that a product reads and writes, with the type that they are kept in."""
    for operand in product.activations:
        integers = operand.dequantizer.inputs[0] if operand.dequantizer is not None else None
        kept = integers if integers is not None else operand.value
        yield operand.value, kept.dtype or ir.DataType.FLOAT
    result = product.node.outputs[0]
    readers = [use.node for use in result.uses()]
    quantized = bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers)
    yield result, (readers[0].outputs[0].dtype if quantized else result.dtype) or ir.DataType.FLOAT


def _bytes_between(value: ir.Value, kind: ir.DataType) -> int:
    return round((_elements(value) or 0) * kind.itemsize)


def _stored_bytes(value: ir.Value) -> int:
    tensor = stored_tensor(value)
    return 0 if tensor is None else tensor.nbytes


def _elements(value: ir.Value) -> int | None:
    if value.shape is None:
        return None
    sizes = [size for size in value.shape if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(value.shape) else None
