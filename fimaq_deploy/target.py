"""What a runtime can execute, as data.

A target never says how to reach a runtime (that is `fimaq_deploy.engines`), only which numbers it computes. Calibration
builds its grids from it, so fake-quant, ONNX and engine agree. One quantized model may serve several targets:
`combine` gives the rules that all of them satisfy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from fimaq_deploy.errors import UserError

# A product with fewer inputs or outputs gains nothing from integers on a CPU.
LEAST_PRODUCT = 16
ANY_RUNTIME = "onnxruntime-cpu"  # whose file, in float32, every runtime here reads

HighPrecision = Literal["float16", "bfloat16", "float32"]
# How a runtime takes INT4 weights that it multiplies as INT8: it makes INT8 of them once, when it loads the file, or in
# every run, with kernels of its own.
Int4Channels = Literal["folded", "unpacked"]
# How a file holds weights of at most four bits: auto is INT4 wherever that costs no kernel.
WeightStorage = Literal["auto", "int8", "int4"]

# How a product computes: in integers of up to 8 bits, or in floats of 8 or 4.
Format = Literal["int", "fp8", "nvfp4"]
ComputeCapability = tuple[int, int]  # a GPU generation, such as (8, 9)
Operator = Literal["layer", "attention"]  # a product with stored weights, or the two inside attention
FORMAT_NAMES: dict[Format, str] = {"int": "INT8", "fp8": "FP8", "nvfp4": "NVFP4"}

# A name is part of file names and command lines; `combine` joins several with a plus.
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_GUESTS = "fimaq_deploy.targets"


@dataclass(frozen=True)
class AttentionEnvelope:
    """Where a fused INT8 attention kernel exists. Outside it both attention matmuls stay in high precision.

    least_softmax_bits: of the grid of the softmax's result. A grid with fewer than the container's bits needs a Clip,
        which no fused kernel has; and it would save nothing.
    """

    head_sizes: frozenset[int]
    max_tokens: int
    least_softmax_bits: int = 0

    def broken_rule(self, head_size: int, tokens: int) -> str | None:
        """The rule that keeps this attention from fusing in INT8, or None where it fuses."""
        if head_size not in self.head_sizes:
            return f"head size {head_size} is not one of {sorted(self.head_sizes)}"
        if tokens > self.max_tokens:
            return f"{tokens} tokens are more than {self.max_tokens}"
        return None


@dataclass(frozen=True)
class FloatKernel:
    """A product in 8- or 4-bit floats that has kernels.

    weights, activations: how scales may be laid out. since: the compute capability of the first GPUs that have it.
    """

    format: Format
    operator: Operator
    weights: frozenset[str]
    activations: frozenset[str]
    since: ComputeCapability
    least_tokens: int = 1

    def broken_rule(self, tokens: int) -> str | None:
        """What keeps attention over so many tokens from fusing, or None where it fuses."""
        if tokens < self.least_tokens:
            return f"{tokens} tokens are fewer than the {self.least_tokens} of {FORMAT_NAMES[self.format]} attention"
        return None

    @property
    def told(self) -> str:
        """In words."""
        name, since = FORMAT_NAMES[self.format], _text(self.since)
        what = "attention" if self.operator == "attention" else "products with stored weights"
        return f"{name} {what} on GPUs of compute capability {since} or newer"


def _text(capability: ComputeCapability) -> str:
    return f"{capability[0]}.{capability[1]}"


@dataclass(frozen=True)
class Target:
    """The numbers a runtime executes.

    high_precision: the type of everything that is not integer.
    asymmetric_8bit: whether activations may have a zero point at 8 bits (at fewer bits every grid fits INT8 anyway).
    attention: the envelope of fused INT8 attention, None where any shape will do.
    int4_block_sizes: the block lengths of INT4 weight-only layouts.
    any_int4: whether it also compiles INT4 in other blocks and layouts, which others of its family refuse.
    lint_rules: what breaks it beyond what breaks every runtime, as names of `fimaq_deploy.graph.rules.RULES`.
    least_product: the smallest K and N of a matrix product that is worth quantizing.
    cheap_zero_points: whether a zero point costs its integer kernels nothing; where it does, `auto` is symmetric.
    integer_attention: whether the matmuls inside attention are faster in integers. They multiply two activations, which
        ONNX Runtime packs anew for each call: its float kernels are as fast, and exact.
    integer_pooled_head: whether a head behind a mean over tokens is as fast in integers. TensorRT-RTX ends a kernel in
        the middle of its QuantizeLinear.
    clip: where grids smaller than their container are clipped, before QuantizeLinear or behind it. INT8 Clip compiles
        on TensorRT-RTX and keeps attention fused; TensorRT 10 and 11 could not be tried, and floats compile everywhere.
    splits_products: whether its compiler splits a product whose result is split, and loses the integers with that.
    integer_products: whether its kernels multiply integers at all. ONNX Runtime's CUDA provider dequantizes and
        multiplies floats, which takes longer than the original in half precision; only INT4 weights with float
        activations have a kernel there.
    floats: the products in 8- and 4-bit floats that have kernels.
    compute_capability: of the oldest GPU that its engines are for; None where nobody has said.
    patches: how the patch embedding is written. Behind an INT8 convolution TensorRT-RTX leaves Swin a transposing
        kernel, behind a product of windows none. TensorRT 10 and 11, where neither could be tried, get the convolution.
    int4_channels: what becomes of weights of at most four bits that are stored as INT4 and multiplied as INT8. Four
        kernels a block more where they are unpacked in every run: there they are stored so only where that is asked.
    """

    name: str
    high_precision: HighPrecision
    asymmetric_8bit: bool
    attention: AttentionEnvelope | None
    int4_block_sizes: frozenset[int]
    lint_rules: frozenset[str] = frozenset()
    least_product: int = 1
    any_int4: bool = False
    cheap_zero_points: bool = True
    integer_attention: bool = True
    integer_pooled_head: bool = True
    clip: Literal["floats", "integers"] = "floats"
    splits_products: bool = False
    patches: Literal["convolution", "product"] = "product"
    integer_products: bool = True
    int4_channels: Int4Channels = "folded"
    floats: tuple[FloatKernel, ...] = ()
    compute_capability: ComputeCapability | None = None

    def kernel(self, form: Format, operator: Operator) -> FloatKernel | None:
        """What computes a product in 8- or 4-bit floats; None where nothing does."""
        return next((one for one in self.floats if (one.format, one.operator) == (form, operator)), None)

    def executes_everywhere(self, form: Format, operator: Operator) -> bool:
        """Whether every GPU that engines are for is known to have this kernel."""
        found = self.kernel(form, operator)
        return found is not None and self.compute_capability is not None and self.compute_capability >= found.since

    def refusal(self, form: Format, operator: Operator) -> str | None:
        """Why it cannot execute a product in 8- or 4-bit floats, and what can; None where it does."""
        found = self.kernel(form, operator)
        name = f"{FORMAT_NAMES[form]} {'attention' if operator == 'attention' else 'products'}"
        if found is None:
            able = [target.name for target in TARGETS.values() if target.kernel(form, operator)]
            own = "; ".join(one.told for one in self.floats)
            return (
                f"{name} cannot run on target {self.name}: it executes integers{f', and {own}' if own else ''}; "
                f"name {' or '.join(able)} alone, or take a recipe of integers"
            )
        if self.compute_capability is not None and self.compute_capability < found.since:
            return (
                f"{name} cannot run on compute capability {_text(self.compute_capability)}: "
                f"it needs {_text(found.since)} or newer"
            )
        return None

    @property
    def reads_the_common_file(self) -> bool:
        """Whether a file that was written for no target in particular is the one for it."""
        plain = self.high_precision == "float32" and self.clip == "floats" and self.patches == "product"
        return plain and not self.splits_products and self.int4_channels == "folded"


_TENSORRT_ATTENTION = AttentionEnvelope(frozenset({16, 32, 64}), 512, least_softmax_bits=8)
# Measured on TensorRT-RTX 1.7.1: attention fuses in FP8 for heads of 16 to 256 and 32 to 4,096 tokens.
_PER_TENSOR, _PER_CHANNEL, _BLOCKS = "tensor", "channel", "blocks of 16"
_TENSORRT_FLOATS = (
    FloatKernel("fp8", "layer", frozenset({_PER_TENSOR, _PER_CHANNEL}), frozenset({_PER_TENSOR}), (8, 9)),
    FloatKernel("nvfp4", "layer", frozenset({_BLOCKS}), frozenset({_BLOCKS}), (10, 0)),
    FloatKernel("fp8", "attention", frozenset(), frozenset({_PER_TENSOR}), (8, 9), least_tokens=32),
)
_TENSORRT_BLOCKS = frozenset({64, 128})
_ONNXRUNTIME_BLOCKS = frozenset({16, 32, 64, 128, 256})
_TENSORRT_RULES = frozenset(
    {
        "attention-envelope",
        "clipped-attention",
        "dynamic-scale",
        "half-attention",
        "int8-blocks",
        "integer-bias",
        "integer-type",
        "operator-format",
        "pooled-head",
        "qkv-output",
        "quantized-scores",
        "residual",
        "scalar-constant",
        "zero-point",
    }
)
_CPU_RULES = frozenset({"round-trip", "tiny-product"})
_ONNXRUNTIME_RULES = frozenset({"int4-channels", "int8-blocks", "moved-integers", "no-zero-point"})

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "tensorrt",
            "float16",
            False,
            _TENSORRT_ATTENTION,
            _TENSORRT_BLOCKS,
            _TENSORRT_RULES,
            integer_pooled_head=False,
            splits_products=True,
            patches="convolution",
            int4_channels="unpacked",
            floats=_TENSORRT_FLOATS,
        ),
        Target(
            "tensorrt-rtx",
            "float16",
            False,
            _TENSORRT_ATTENTION,
            _TENSORRT_BLOCKS,
            _TENSORRT_RULES,
            integer_pooled_head=False,
            any_int4=True,
            clip="integers",
            splits_products=True,
            int4_channels="unpacked",
            floats=_TENSORRT_FLOATS,
        ),
        Target(
            "onnxruntime-cpu",
            "float32",
            True,
            None,
            _ONNXRUNTIME_BLOCKS,
            _CPU_RULES | _ONNXRUNTIME_RULES,
            LEAST_PRODUCT,
            integer_attention=False,
        ),
        Target(
            "onnxruntime-cuda",
            "float16",
            True,
            None,
            _ONNXRUNTIME_BLOCKS,
            integer_products=False,
        ),
        Target(
            "openvino-cpu",
            "float32",
            True,
            None,
            _ONNXRUNTIME_BLOCKS,
            _CPU_RULES | {"costly-zero-point"},
            LEAST_PRODUCT,
            cheap_zero_points=False,
        ),
    )
}


def find_target(name: str) -> Target:
    """Look a target up by name.

    Raises:
        UserError: no target has this name.
    """
    if name not in TARGETS:
        load_guests()
    if name not in TARGETS:
        raise UserError(f"unknown target '{name}': expected one of {', '.join(TARGETS)}")
    return TARGETS[name]


def add_target(target: Target) -> None:
    """Make a target known under its name. `fimaq_deploy.engines.runtimes.register` does, with what executes it.

    Raises:
        ValueError: the name is taken by another one, or cannot be part of a file's name.
    """
    if not _NAME.fullmatch(target.name):
        raise ValueError(f"target {target.name!r}: expected a name of small letters, digits and hyphens")
    if TARGETS.setdefault(target.name, target) != target:
        raise ValueError(f"there is another target {target.name} already")


@cache
def load_guests() -> None:
    """Import the modules in which other packages register their targets: entry points of `fimaq_deploy.targets`.

    Raises:
        UserError: one of them cannot be imported.
    """
    for guest in entry_points(group=_GUESTS):
        _load_guest(guest)


def _load_guest(guest: EntryPoint) -> None:
    try:
        guest.load()
    except Exception as error:  # whatever a foreign module raises
        raise UserError(
            f"the targets of {guest.value} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): mend or remove the package that names them"
        ) from error


def combine(targets: Iterable[Target]) -> Target:
    """The strictest rules of several targets: what every one of them executes.

    Attention is in integers as soon as one target is faster so, a pooled head in floats. The high-precision type is the
    first target's; it does not change what is learned.

    Raises:
        UserError: no target was given.
    """
    found: Sequence[Target] = tuple(targets)
    if not found:
        raise UserError(f"no target was given: name at least one of {', '.join(TARGETS)}")
    envelopes = [target.attention for target in found if target.attention]
    return Target(
        name="+".join(dict.fromkeys(target.name for target in found)),
        high_precision=found[0].high_precision,
        asymmetric_8bit=all(target.asymmetric_8bit for target in found),
        attention=_strictest(envelopes) if envelopes else None,
        int4_block_sizes=frozenset.intersection(*(target.int4_block_sizes for target in found)),
        lint_rules=frozenset.union(*(target.lint_rules for target in found)),
        least_product=max(target.least_product for target in found),
        any_int4=all(target.any_int4 for target in found),
        cheap_zero_points=all(target.cheap_zero_points for target in found),
        integer_attention=any(target.integer_attention for target in found),
        integer_pooled_head=all(target.integer_pooled_head for target in found),
        clip="integers" if all(target.clip == "integers" for target in found) else "floats",
        splits_products=any(target.splits_products for target in found),
        integer_products=any(target.integer_products for target in found),
        int4_channels="folded" if all(target.int4_channels == "folded" for target in found) else "unpacked",
        floats=tuple(one for one in found[0].floats if all(one in target.floats for target in found)),
        compute_capability=_oldest(found),
        patches="product" if all(target.patches == "product" for target in found) else "convolution",
    )


def since(target: Target, sm: int | None) -> Target:
    """A target whose engines are for GPUs from a generation on, such as 89; the target as it is for None."""
    if sm is None:
        return target
    major, minor = divmod(sm, 10)
    return replace(target, compute_capability=(major, minor))


def _oldest(targets: Sequence[Target]) -> ComputeCapability | None:
    """The oldest GPU that any is for; None where nobody has said it of one that has kernels for 8-bit floats."""
    said = [target.compute_capability for target in targets if target.floats]
    return None if None in said else min((one for one in said if one is not None), default=None)


def _strictest(envelopes: Sequence[AttentionEnvelope]) -> AttentionEnvelope:
    sizes = frozenset.intersection(*(envelope.head_sizes for envelope in envelopes))
    return AttentionEnvelope(
        sizes,
        min(envelope.max_tokens for envelope in envelopes),
        max(envelope.least_softmax_bits for envelope in envelopes),
    )
