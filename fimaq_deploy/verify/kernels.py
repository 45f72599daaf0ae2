"""What one kernel of a compiled plan computes, and in which types: read from its kind, its name and its tensors.

What is read was seen with TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from fimaq_deploy.verify.layer_plan import Kernel, PlanTensor

_MATRIX_KINDS = frozenset({"gemm", "correlation", "convolution"})
# A fused kernel is named after its operators, two to four letters each: __myl_FcAddDivCastErfCastAddMulMul_myl0_11.
_FUSED_NAME = re.compile(r"__myl_([A-Za-z0-9]+)_myl")
_OPERATOR = re.compile(r"[A-Z][a-z0-9]*")
_PRODUCTS = frozenset({"Fc", "Gemm", "Conv", "Corr", "Dot"})
_MOVES = frozenset({"Cast", "Conc", "Move", "Repl", "Resh", "Slic", "Sque", "Tran", "Unsq"})
_TYPES = {"Int8": "int8", "Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "FP8": "float8"}
_FEW_BITS = frozenset({"Int8", "Int4", "UInt8", "FP8", "FP4", "FP4E2M1"})
# Those that a matrix kernel multiplies as they are, as the plan spells them, and as a file does.
_MULTIPLIED = {"Int8": "int8", "FP8": "fp8", "FP4": "fp4", "FP4E2M1": "fp4"}


def is_matrix_kernel(kernel: Kernel) -> bool:
    """Whether a kernel computes a matrix product or attention."""
    return kernel.kind.lower() in _MATRIX_KINDS or not _PRODUCTS.isdisjoint(_operators(kernel)) or is_attention(kernel)


def is_attention(kernel: Kernel) -> bool:
    return "mha" in kernel.name


def _operators(kernel: Kernel) -> list[str]:
    """What a fused kernel computes, in order; empty for one that has another kind of name."""
    found = _FUSED_NAME.match(kernel.name)
    return _OPERATOR.findall(found[1]) if found else []


def multiplied_type(kernel: Kernel) -> str | None:
    """The type of both operands where they are matrices of few bits that the product reads as they are, not cast."""
    read = [tensor for tensor in kernel.inputs if _is_matrix(tensor)]
    if not read:
        return None
    alike = sum(tensor.dtype == read[0].dtype for tensor in (*read, *filter(_is_matrix, kernel.constants)))
    prologue = takewhile(lambda operator: operator not in _PRODUCTS, _operators(kernel))
    return _MULTIPLIED.get(read[0].dtype) if alike > 1 and "Cast" not in prologue else None


def _is_matrix(tensor: PlanTensor) -> bool:
    return sum(size != 1 for size in tensor.shape) > 1


def stored_in_few_bits(kernel: Kernel) -> int:
    """How many matrices of at most 8 bits are compiled into a kernel."""
    return sum(tensor.dtype in _FEW_BITS and _is_matrix(tensor) for tensor in kernel.constants)


def dequantized_weights(kernel: Kernel) -> int:
    """How many weights a kernel writes to memory in another type: those of one that multiplies nothing."""
    return 0 if is_matrix_kernel(kernel) else stored_in_few_bits(kernel)


def read_types(kernels: Sequence[Kernel]) -> Iterator[str]:
    """What most of the tensors are that each kernel reads, as reports have it: "float8", "int8", "float16".

    A mask that attention adds to its scores is one more tensor, of floats and in front, beside q, k and v.
    """
    for kernel in kernels:
        ((kind, _),) = Counter(tensor.dtype for tensor in kernel.inputs).most_common(1)
        yield _TYPES.get(kind, kind)


def is_conversion(kernel: Kernel) -> bool:
    """Whether a kernel only moves numbers or changes their type."""
    operators = _operators(kernel)
    return (bool(operators) and _MOVES.issuperset(operators)) or "reformat" in kernel.kind.lower()
