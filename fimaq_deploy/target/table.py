"""What a runtime can execute, as data: each target's table of kernels.

A target never says how to reach a runtime (that is `fimaq_deploy.engines`), only which numbers it computes. Calibration
builds its grids from it, so fake-quant, ONNX and engine agree. One quantized model may serve several targets:
`combine` gives the rules that all of them satisfy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from fimaq_deploy.errors import UserError
from fimaq_deploy.target.kernels import (
    CHANNEL,
    FLOATS,
    NVFP4_BLOCK,
    PRODUCTS,
    TENSOR,
    ComputeCapability,
    Granularity,
    Kernel,
    Operator,
    ProductName,
    Shapes,
    Widened,
    ZeroPoints,
    in_words,
)
from fimaq_deploy.target.numbers import INT4

# A product with fewer inputs or outputs gains nothing from integers on a CPU.
LEAST_PRODUCT = 16
ANY_RUNTIME = "onnxruntime-cpu"  # whose file, in float32, every runtime here reads

HighPrecision = Literal["float16", "bfloat16", "float32"]
# How a file holds weights of at most four bits: auto is INT4 wherever that costs no kernel.
WeightStorage = Literal["auto", "int8", "int4"]

# A name is part of file names and command lines; `combine` joins several with a plus.
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_GUESTS = "fimaq_deploy.targets"


@dataclass(frozen=True)
class Target:
    """The numbers a runtime executes.

    high_precision: the type of everything that no kernel of few bits computes.
    kernels: the products in integers and floats of 8 and 4 bits that it executes, one for each format and operator.
    lint_rules: what breaks it beyond what breaks every runtime, as names of `fimaq_deploy.graph.rules.RULES`.
    clip: where grids smaller than their container are clipped, before QuantizeLinear or behind it. INT8 Clip compiles
        on TensorRT-RTX and keeps attention fused; TensorRT 10 and 11 could not be tried, and floats compile everywhere.
    splits_products: whether its compiler splits a product whose result is split, and loses the integers with that.
    patches: how the patch embedding is written. Behind an INT8 convolution TensorRT-RTX leaves Swin a transposing
        kernel, behind a product of windows none. TensorRT 10 and 11, where neither could be tried, get the convolution.
    compute_capability: of the oldest GPU that its engines are for; None where nobody has said.

    Raises:
        ValueError: two kernels are of the same format and operator.
    """

    name: str
    high_precision: HighPrecision
    kernels: tuple[Kernel, ...]
    lint_rules: frozenset[str] = frozenset()
    clip: Literal["floats", "integers"] = "floats"
    splits_products: bool = False
    patches: Literal["convolution", "product"] = "product"
    compute_capability: ComputeCapability | None = None

    def __post_init__(self) -> None:
        names = [(one.format, one.operator) for one in self.kernels]
        if len(set(names)) < len(names):
            raise ValueError(f"target {self.name!r}: expected one kernel for each format and operator")

    def kernel(self, form: ProductName, operator: Operator) -> Kernel | None:
        """What computes a product in a format; None where nothing does."""
        return next((one for one in self.kernels if (one.format, one.operator) == (form, operator)), None)

    def executes_everywhere(self, form: ProductName, operator: Operator) -> bool:
        """Whether every GPU that engines are for is known to have this kernel."""
        found = self.kernel(form, operator)
        if found is None or found.since is None:
            return found is not None
        return self.compute_capability is not None and found.runs_on(self.compute_capability)

    @property
    def floats(self) -> tuple[Kernel, ...]:
        """The products in floats of 8 and 4 bits."""
        return tuple(one for one in self.kernels if one.format in ("fp8", "nvfp4"))

    @property
    def integers(self) -> Kernel:
        """Of INT8 products with stored weights. Where there are none: what a file says is computed in floats."""
        return self.kernel("int", "layer") or Kernel("int", "layer", native=False)

    @property
    def int4_channels(self) -> Widened | None:
        """What becomes of INT4 weights that are multiplied as INT8; None where they cannot be stored so."""
        return dict(self.integers.packed).get(INT4.name)

    def executed(self) -> tuple[Kernel, ...]:
        """The kernels that every GPU has which engines are for, so far as is known."""
        return tuple(one for one in self.kernels if one.native and one.runs_on(self.compute_capability))

    def refusal(self, form: ProductName, operator: Operator) -> str | None:
        """Why it cannot execute a product, what it can, and what to take instead, in one line; None where it does."""
        found = self.kernel(form, operator)
        if found is not None and found.runs_on(self.compute_capability):
            return None
        what = Kernel(form, operator).kind
        said, needed = self.compute_capability, found.since if found else None
        able = ", ".join(one.told if said is None else one.title for one in self.executed()) or "floats alone"
        instead = self._instead(form, operator)
        if said is not None and needed is not None:
            where = f"target {self.name} for compute capability {in_words(said)}: it needs {in_words(needed)} or newer"
            return f"{what} cannot run on {where}, and {in_words(said)} executes {able}; {instead}"
        others = [target.name for target in TARGETS.values() if target.kernel(form, operator)]
        named = f"name {' or '.join(others)} alone, or " if others else ""
        return f"{what} cannot run on target {self.name}: it executes {able}; {named}{instead}"

    def storage_refusal(self, storage: WeightStorage) -> str | None:
        """Why weights of at most four bits cannot be stored so where INT8 multiplies them; None where they can."""
        if storage != "int4":
            return None
        if self.int4_channels is None:
            return f"INT4 storage of weights beside INT8 is nothing that target {self.name} reads: take int8"
        reads, said = self.kernel("int4", "layer"), self.compute_capability
        if reads is None or reads.since is None or said is None or reads.runs_on(said):
            return None
        return (
            f"INT4 storage of weights cannot be read on target {self.name} for compute capability {in_words(said)}: "
            f"it needs {in_words(reads.since)} or newer; take int8"
        )

    def _instead(self, form: ProductName, operator: Operator) -> str:
        """The nearest that it executes."""
        if operator == "attention":
            other = self.kernel("int" if form != "int" else "fp8", "attention")
            if other is not None and other.runs_on(self.compute_capability):
                return f"take attention.format auto: {other.title} where it fuses, else floats"
            return "leave attention in floats with attention.quantize never"
        near = (one for one in PRODUCTS[form].nearest if self._can(one))
        found = next(near, None)
        return f"take a recipe of {PRODUCTS[found].title}, such as {PRODUCTS[found].preset}" if found else "take floats"

    def _can(self, form: ProductName) -> bool:
        found = self.kernel(form, "layer")
        return found is not None and found.runs_on(self.compute_capability)

    @property
    def reads_the_common_file(self) -> bool:
        """Whether a file that was written for no target in particular is the one for it."""
        plain = self.high_precision == "float32" and self.clip == "floats" and self.patches == "product"
        return plain and not self.splits_products and self.int4_channels == "folded"


# --- the table ---

_EACH: frozenset[Granularity] = frozenset({TENSOR})
_EACH_OR_NONE: frozenset[Granularity] = frozenset({TENSOR, FLOATS})
_NO_CONVOLUTION = False


def _int8(
    zero_points: ZeroPoints, int4: Widened, *, least_size: int = 1, pooled: bool = True, native: bool = True
) -> Kernel:
    return Kernel(
        "int",
        "layer",
        frozenset({CHANNEL}),
        _EACH_OR_NONE,
        native=native,
        zero_points=zero_points,
        packed=((INT4.name, int4),),
        least_size=least_size,
        pooled=pooled,
    )


def _int4(*blocks: int, other_layouts: bool = False, since: ComputeCapability | None = None) -> Kernel:
    return Kernel(
        "int4", "layer", frozenset(blocks), frozenset({FLOATS}), since, convolution=False, other_layouts=other_layouts
    )


# Measured on TensorRT-RTX 1.7.1: attention fuses in FP8 for heads of 16 to 256 and 32 to 4,096 tokens.
_TENSORRT_ATTENTION = Kernel(
    "int", "attention", shapes=Shapes(frozenset({16, 32, 64}), most_tokens=512, least_softmax_bits=8)
)
_FP8 = (
    Kernel("fp8", "layer", frozenset({TENSOR, CHANNEL}), _EACH, (8, 9)),
    Kernel("fp8", "attention", since=(8, 9), shapes=Shapes(least_tokens=32)),
)


def _nvfp4(since: ComputeCapability) -> Kernel:
    blocks: frozenset[Granularity] = frozenset({NVFP4_BLOCK})
    return Kernel("nvfp4", "layer", blocks, blocks, since, convolution=False)


_ONNXRUNTIME_BLOCKS = (16, 32, 64, 128, 256)
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
        # Data-centre Blackwell is 10.0. Which GPUs read INT4 beside floats was not tried.
        Target(
            "tensorrt",
            "float16",
            (_int8("none", "unpacked", pooled=False), _int4(64, 128), _TENSORRT_ATTENTION, *_FP8, _nvfp4((10, 0))),
            _TENSORRT_RULES,
            splits_products=True,
            patches="convolution",
        ),
        # It compiles for no 10.0, and refuses INT4 beside floats on 7.5.
        Target(
            "tensorrt-rtx",
            "float16",
            (
                _int8("none", "unpacked", pooled=False),
                _int4(64, 128, other_layouts=True, since=(8, 0)),
                _TENSORRT_ATTENTION,
                *_FP8,
                _nvfp4((12, 0)),
            ),
            _TENSORRT_RULES,
            clip="integers",
            splits_products=True,
        ),
        Target(
            "onnxruntime-cpu",
            "float32",
            (
                _int8("free", "folded", least_size=LEAST_PRODUCT),
                _int4(*_ONNXRUNTIME_BLOCKS),
                Kernel("int", "attention", faster=False),
            ),
            _CPU_RULES | _ONNXRUNTIME_RULES,
        ),
        # Its provider dequantizes and multiplies floats, which takes longer than the original in half precision; only
        # INT4 weights with float activations have a kernel there.
        Target(
            "onnxruntime-cuda",
            "float16",
            (
                _int8("free", "folded", native=False),
                _int4(*_ONNXRUNTIME_BLOCKS),
                Kernel("int", "attention", native=False),
            ),
        ),
        Target(
            "openvino-cpu",
            "float32",
            (
                _int8("costly", "folded", least_size=LEAST_PRODUCT),
                _int4(*_ONNXRUNTIME_BLOCKS),
                Kernel("int", "attention"),
            ),
            _CPU_RULES | {"costly-zero-point"},
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
