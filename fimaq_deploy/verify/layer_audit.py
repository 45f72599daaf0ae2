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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.engines.runtimes import Runtime, every_runtime, find_runtime
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.graph.products import Product, is_left_alone
from fimaq_deploy.graph.structure import Structure, read_structure
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


@dataclass(frozen=True)
class EngineAudit:
    """One engine.

    compute_capability: such as "8.9" or "8.9 or newer", None where it was not said. broken: promises, as sentences.
    """

    target: str
    compute_capability: str | None
    blocks: tuple[BlockPlan, ...]
    broken: tuple[str, ...] = ()


class Audits(tuple[EngineAudit, ...]):
    """The engines of one file. required: the promises that they were held to."""

    file: str
    required: tuple[str, ...]

    def __new__(cls, found: Iterable[EngineAudit], file: str, required: tuple[str, ...]) -> Audits:
        self = super().__new__(cls, found)
        self.file, self.required = file, required
        return self

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/audit/1",
            "file": self.file,
            "required": list(self.required),
            "audits": [asdict(each) for each in self],
        }


# --- promises ---


def _int8_gemms(block: BlockPlan) -> str | None:
    if block.float_gemms:
        return f"not in INT8: {_some(block.float_gemms)}"
    others = block.fp8_gemms + block.fp4_gemms
    return f"{others} of {block.gemms} GEMMs in FP8 or FP4" if others else None


def _gemms_as_written(block: BlockPlan) -> str | None:
    return (
        f"quantized, but compiled to a floating-point product: {_some(block.lost_gemms)}" if block.lost_gemms else None
    )


def _fused_attention(block: BlockPlan) -> str | None:
    return "attention is not fused" if block.attention == "unfused" else None


def _no_weight_dequant(block: BlockPlan) -> str | None:
    count = block.dequantized_weights
    return f"{count} weight{'s' * (count > 1)} dequantized at run time" if count else None


def _no_more_kernels(block: BlockPlan) -> str | None:
    twin = block.twin_kernels
    if twin is None or block.kernels <= twin:
        return None
    return f"{block.kernels} kernels, but {twin} in the full-precision twin"


PROMISES: dict[str, Callable[[BlockPlan], str | None]] = {
    "int8-gemms=all": _int8_gemms,
    "gemms-as-written": _gemms_as_written,
    "fused-attention": _fused_attention,
    "no-weight-dequant": _no_weight_dequant,
    "no-more-kernels": _no_more_kernels,
}
# What every quantized file should keep; `int8-gemms=all` asks more of it than a weight-only file says.
EXPECTED = ("gemms-as-written", "fused-attention", "no-weight-dequant")


def parse_promises(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The promises in a list, or in a text with commas; `EXPECTED` for None.

    Raises:
        UserError: an unknown one, or none at all.
    """
    if asked is None:
        return EXPECTED
    words = asked.split(",") if isinstance(asked, str) else asked
    names = tuple(filter(None, (name.strip() for name in words)))
    if isinstance(asked, str) and not names:
        raise UserError(f"--require '{shown(asked)}' asks for nothing: expected some of {','.join(PROMISES)}")
    for name in names:
        if name not in PROMISES:
            raise UserError(f"unknown promise '{name}': expected some of {','.join(PROMISES)}")
    return names


def broken_promises(blocks: Sequence[BlockPlan], require: Sequence[str]) -> tuple[str, ...]:
    """Each breach as a sentence. Blocks that break a promise in the same way share one."""
    broken: dict[str, list[str]] = {}
    for name in require:
        for block in blocks:
            problem = PROMISES[name](block)
            if problem:
                broken.setdefault(problem, []).append(block.name)
    return tuple(f"{_some(names)}: {problem}" for problem, names in broken.items())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- compiling ---


def audit(
    path: str | Path,
    target: str,
    *,
    compute_for: Sequence[ComputeCapability] | None = None,
    against: str | Path | None = None,
    require: str | Sequence[str] | None = None,
) -> Audits:
    """Compile an ONNX file for each GPU generation, or once for all of them, and say what became of it.

    compute_for: the GPU generations to compile for one by one; None is one engine for all that the target compiles for.
    against: the yardstick, the full-precision model, compiled in the same way.
    require: names of `PROMISES`, in a list or with commas, whose breaches go to `broken`; None is `EXPECTED`.

    Raises:
        UserError: the target has no layer plan, cannot compile here, or its compiler refuses the file.
    """
    runtime = find_runtime(target)
    if not runtime.layer_plan:
        planned = [one.name for one in every_runtime() if one.layer_plan]
        raise UserError(f"target {target} has no layer plan to audit: expected {' or '.join(planned)}")
    required = parse_promises(require)
    if "no-more-kernels" in required and against is None:
        raise UserError("no-more-kernels compares with the full-precision model: name its file as --against")
    file, original = read_structure(path), None if against is None else read_structure(against)
    found = []
    for capability in [None] if compute_for is None else compute_for:
        alone = None if capability is None else [capability]
        counts = None
        if against is not None and original is not None:
            counts = kernel_counts(audit_log(builder_log(against, runtime, alone), original))
        blocks = audit_log(builder_log(path, runtime, alone), file, counts)
        found.append(EngineAudit(target, _text(capability), blocks, broken_promises(blocks, required)))
    return Audits(found, str(path), required)


def builder_log(path: str | Path, runtime: Runtime, compute_for: Sequence[ComputeCapability] | None) -> str:
    """What the compiler says about a file; the engine is thrown away."""
    with TemporaryDirectory() as folder:
        return runtime.compile(path, Path(folder) / "audit.engine", compute_for=compute_for, verbose=True).log


def _text(capability: ComputeCapability | None) -> str | None:
    return None if capability is None else f"{capability[0]}.{capability[1]}"


# --- reading the plan ---


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
