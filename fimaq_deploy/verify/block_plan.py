"""What a graph was compiled to, block by block, read from the layer plan: the proof that a quantized model fuses.

A QDQ file only asks for integer kernels; whether it got them is decided by the compiler, and a graph that fell back to
floating point still runs and still gives the right answers, only slower. The plan says it without a GPU:

- a *GEMM* is a product with stored weights (MatMul, Gemm, Conv) of the file. It runs in INT8, FP8 or FP4 where a matrix
  kernel computes it that reads such numbers on both sides, and *weight-only* where a matrix kernel casts its weights;
- a product that gains nothing from integers, because it is tiny or multiplies one row an image as a classifier does, is
  no GEMM where the file leaves it in floats: it is counted as *left alone*;
- *attention* is fused where a block has one attention kernel for each softmax of the file;
- a *weight is dequantized at run time* where a kernel of its own writes it to memory as floats;
- a *conversion* is a kernel that only moves numbers or changes their type.

A kernel that is no product counts to the block of the next product in the plan, because it prepares it: a compiler
merges the end of one block with the start of the next, in another way for integers than for floats, and only so are two
plans compared at the same joints. What follows the last product counts to its block. Blocks are the stages of a timm
model as node names tell them; a node whose name tells none belongs to the block of the node before it.

Not covered: how long a kernel takes, and which of several implementations the GPU's own compiler picks when the engine
is loaded. What is read was seen with TensorRT-RTX 1.7.1; the same reading of TensorRT 10's and 11's logs is untried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import onnx_ir as ir

from fimaq_deploy.graph.products import Product, is_left_alone
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.graph.values import integer_type
from fimaq_deploy.verify.kernels import (
    dequantized_weights,
    is_attention,
    is_conversion,
    is_matrix_kernel,
    multiplied_type,
    read_types,
    stored_in_few_bits,
)
from fimaq_deploy.verify.layer_plan import Kernel, read_plan

_STAGE = re.compile(r"(?:layers\.\d+\.)?blocks\.\d+|layers\.\d+\.downsample|patch_embed|(?:fc_)?norm|head")
# torch's older exporter repeats every module: /layers/layers.0/blocks/blocks.1/attn/qkv/MatMul.
_REPEATED = re.compile(r"(?:^|/)(\w+)/(?=\1\.\d)")
_HEAD, _WHOLE = "head", "model"
# Work of the host, and events between streams.
_NO_KERNELS = frozenset({"constant", "noop", "shape_call", "signal", "wait"})
_STORED = {ir.DataType.FLOAT8E4M3FN: "fp8", ir.DataType.FLOAT4E2M1: "fp4"}


@dataclass(frozen=True)
class BlockPlan:
    """The kernels of one block; what they mean is said above.

    left_alone: products of the file that are in floats and gain nothing from integers; no GEMMs.
    attention: the type that fused attention reads, "unfused", or None in a block without attention.
    twin_kernels: kernels of the same block in the full-precision twin, None without one.
    float_gemms: the products that run in none of INT8, FP8 and FP4, as nodes of the file.
    lost_gemms: those that the file quantized and that run neither in its type nor weight-only as it says.
    """

    name: str
    kernels: int
    gemms: int
    int8_gemms: int
    weight_only_gemms: int
    attention: str | None
    dequantized_weights: int
    conversions: int
    twin_kernels: int | None = None
    float_gemms: tuple[str, ...] = ()
    lost_gemms: tuple[str, ...] = ()
    left_alone: int = 0
    fp8_gemms: int = 0
    fp4_gemms: int = 0


def kernel_counts(blocks: Sequence[BlockPlan]) -> dict[str, int]:
    """How many kernels each block has, for `audit_log` of the quantized twin."""
    return {block.name: block.kernels for block in blocks}


def audit_log(log: str, file: Structure, twin_kernels: Mapping[str, int] | None = None) -> tuple[BlockPlan, ...]:
    """Read a builder's log against the file that was compiled, block by block in the file's order.

    Raises:
        UserError: the log holds no layer plan.
    """
    kernels = [kernel for kernel in read_plan(log) if kernel.kind.lower() not in _NO_KERNELS]
    home = _blocks_of_nodes(file)
    order = list(dict.fromkeys(home.values()))
    places = _places(kernels, home, order)
    blocks = []
    for name in order:
        own = [kernel for kernel, place in zip(kernels, places, strict=True) if place == name]
        count = None if twin_kernels is None else twin_kernels.get(name)
        blocks.append(replace(_block(name, own, kernels, file, home), twin_kernels=count))
    return tuple(blocks)


def _places(kernels: Sequence[Kernel], home: Mapping[str, str], order: Sequence[str]) -> list[str]:
    """The block of each kernel: of a product its own, of any other that of the next product."""
    places: list[str | None] = [None] * len(kernels)
    following: str | None = None
    for number, kernel in reversed(list(enumerate(kernels))):
        known = [home[node] for node in kernel.nodes if node in home]
        if known and is_matrix_kernel(kernel):
            following = min(known, key=order.index)
        places[number] = following
    last = next((place for place in reversed(places) if place), order[-1])
    return [place or last for place in places]


def _block(
    name: str, own: Sequence[Kernel], kernels: Sequence[Kernel], file: Structure, home: Mapping[str, str]
) -> BlockPlan:
    inside = [product for product in file.products if product.weight and home[plan_name(product.node)] == name]
    products = [product for product in inside if not is_left_alone(product, file.graph)]
    found = [(product, _execution(plan_name(product.node), kernels)) for product in products]
    softmaxes = sum(home[plan_name(attention.softmax)] == name for attention in file.attentions)
    return BlockPlan(
        name=name,
        kernels=len(own),
        gemms=len(products),
        int8_gemms=sum(how == "int8" for _, how in found),
        weight_only_gemms=sum(how == "weight-only" for _, how in found),
        attention=_attention(own, softmaxes),
        dequantized_weights=sum(dequantized_weights(kernel) for kernel in own),
        conversions=sum(is_conversion(kernel) for kernel in own),
        float_gemms=tuple(plan_name(product.node) for product, how in found if how in ("float", "weight-only")),
        lost_gemms=tuple(plan_name(product.node) for product, how in found if _is_lost(product, how)),
        left_alone=len(inside) - len(products),
        fp8_gemms=sum(how == "fp8" for _, how in found),
        fp4_gemms=sum(how == "fp4" for _, how in found),
    )


def _is_lost(product: Product, how: str) -> bool:
    """Whether a product runs in floats although the file gives it integers, or in another type than it has there."""
    if product.is_integer:
        read = product.activations or product.operands
        return how != _type_of(read[0].dequantizer)
    return product.weight is not None and product.weight.dequantizer is not None and how == "float"


def _type_of(dequantize: ir.Node | None) -> str:
    """The type that a product runs in where it reads what this node dequantizes."""
    stored = None if dequantize is None else integer_type(dequantize)
    return "int8" if stored is None else _STORED.get(stored, "int8")


def plan_name(node: ir.Node) -> str:
    """A node's name as the plan has it: TensorRT names those that have none after their first output."""
    return node.name or f"node_of_{node.outputs[0].name}"


def _blocks_of_nodes(file: Structure) -> dict[str, str]:
    """The block of each node by its name in the plan, in the file's order. Leading nodes go to the first block."""
    names = [plan_name(node) for node in file.graph]
    told = [stage_of(name) for name in names]
    first = next(filter(None, told), _WHOLE)
    filled = accumulate(told, lambda before, own: own or before, initial=first)
    return dict(zip(names, list(filled)[1:], strict=True))


def stage_of(name: str) -> str | None:
    """The stage of a timm model that a node's name tells; None where it tells none. Final norms belong to the head."""
    found = _STAGE.match(_REPEATED.sub(".", name).strip("/.").replace("/", "."))
    if found is None:
        return None
    return _HEAD if found[0].endswith("norm") else found[0]


def _execution(node: str, kernels: Sequence[Kernel]) -> str:
    """How a product runs: "int8", "fp8", "fp4", "weight-only" or "float", which it also is where no kernel names it."""
    own = [kernel for kernel in kernels if node in kernel.nodes and is_matrix_kernel(kernel)]
    types = {multiplied_type(kernel) for kernel in own}
    if len(types) == 1 and (found := next(iter(types))):
        return found
    return "weight-only" if own and all(stored_in_few_bits(kernel) for kernel in own) else "float"


def _attention(own: Sequence[Kernel], softmaxes: int) -> str | None:
    if not softmaxes:
        return None
    fused = [kernel for kernel in own if is_attention(kernel)]
    if len(fused) < softmaxes:
        return "unfused"
    return "+".join(sorted(set(read_types(fused))))
