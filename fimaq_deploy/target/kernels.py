"""Products that runtimes have kernels for, as data: format × operator × granularity × compute capability.

A *product* is a matrix product or convolution with stored weights (`layer`), or the two inside attention. A `Product`
says which numbers it multiplies; a `Kernel` is an entry of a target's table: that product, how its scales may be laid
out, for which shapes and on which GPUs. Placement, lint, refusals and `docs/reference/targets.md` read the entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fimaq_deploy.target.numbers import E2M1, E4M3, INT4, INT8, NumberFormat

# How a recipe says that a product computes: in integers of up to 8 bits, or in floats of 8 or 4.
Format = Literal["int", "fp8", "nvfp4"]
# The same as entries of the table have it, where INT4 weights in blocks, which meet floats, have kernels of their own.
ProductName = Literal["int", "int4", "fp8", "nvfp4"]
Operator = Literal["layer", "attention"]  # a product with stored weights, or the two inside attention
ComputeCapability: TypeAlias = tuple[int, int]  # a GPU generation, such as (8, 9)
# How a runtime takes INT4 weights that it multiplies as INT8: it makes INT8 of them once, when it loads the file, or in
# every run, with kernels of its own.
Widened = Literal["folded", "unpacked"]
ZeroPoints = Literal["none", "costly", "free"]
# What shares a scale: a tensor, an output channel, or so many input channels. FLOATS: what is not quantized has none.
Granularity: TypeAlias = Literal["tensor", "channel", "floats"] | int
Layout: TypeAlias = frozenset[Granularity]
TENSOR: Granularity = "tensor"
CHANNEL: Granularity = "channel"
FLOATS: Granularity = "floats"
NVFP4_BLOCK = 16


@dataclass(frozen=True)
class Product:
    """Which numbers a product multiplies.

    title: as users read it. weights, activations: None where they stay in floats of 16 or 32 bits. scales: the format
    of the scales of blocks, None where they are floats as everywhere. dynamic: whether the scales of activations are
    made while the model runs. nearest: what computes almost the same, the nearest first. preset: a recipe of it.
    """

    name: ProductName
    title: str
    weights: NumberFormat
    activations: NumberFormat | None
    scales: NumberFormat | None = None
    dynamic: bool = False
    nearest: tuple[Format, ...] = ()
    preset: str = ""

    @property
    def bits(self) -> int:
        return self.weights.bits


PRODUCTS: dict[ProductName, Product] = {
    one.name: one
    for one in (
        Product("int", "INT8", INT8, INT8, nearest=("fp8",), preset="w8a8"),
        Product("int4", "INT4", INT4, None, nearest=("int",), preset="w4a16"),
        Product("fp8", "FP8", E4M3, E4M3, nearest=("int",), preset="fp8"),
        Product("nvfp4", "NVFP4", E2M1, E2M1, scales=E4M3, dynamic=True, nearest=("fp8", "int"), preset="nvfp4"),
    )
}


@dataclass(frozen=True)
class Shapes:
    """Where a fused attention kernel exists. Outside of it both matmuls stay in high precision, or take another format.

    head_sizes, most_tokens: None where any will do.
    least_softmax_bits: of the grid of the softmax's result. A grid with fewer than the container's bits needs a Clip,
        which no fused kernel has; and it would save nothing.
    """

    head_sizes: frozenset[int] | None = None
    most_tokens: int | None = None
    least_tokens: int = 1
    least_softmax_bits: int = 0

    def both(self, other: Shapes) -> Shapes:
        """Where two of them exist."""
        sizes = [one.head_sizes for one in (self, other) if one.head_sizes is not None]
        most = [one.most_tokens for one in (self, other) if one.most_tokens is not None]
        return Shapes(
            frozenset.intersection(*sizes) if sizes else None,
            min(most, default=None),
            max(self.least_tokens, other.least_tokens),
            max(self.least_softmax_bits, other.least_softmax_bits),
        )


@dataclass(frozen=True)
class Kernel:
    """An entry of a target's table.

    weights, activations: how scales may be laid out. since: the compute capability of the first GPUs that have it, None
        where every one has.
    native: whether it multiplies in this format; where not, it computes what a file says in floats, and slower.
    faster: whether that is faster than floats, for products of two activations: ONNX Runtime packs them anew in every
        call, and its float kernels are as fast, and exact.
    zero_points: whether activations of 8 bits may have one (at fewer bits every grid fits INT8 anyway) and whether that
        costs time; where it does, `auto` is symmetric.
    packed: names of the narrower formats in which its weights may be stored, with what becomes of them. Four kernels
        a block more where they are unpacked in every run: there they are stored so only where that is asked.
    least_size: the smallest K and N of a matrix product that is worth quantizing.
    pooled: whether a product behind a mean over tokens, of one row an image, is as fast as in floats.
    convolution: whether it convolves.
    shapes: of attention.
    other_layouts: whether it compiles other blocks and layouts too, which other runtimes refuse.
    """

    format: ProductName
    operator: Operator
    weights: Layout = frozenset()
    activations: Layout = frozenset({TENSOR})
    since: ComputeCapability | None = None
    native: bool = True
    faster: bool = True
    zero_points: ZeroPoints = "none"
    packed: tuple[tuple[str, Widened], ...] = ()
    least_size: int = 1
    pooled: bool = True
    convolution: bool = True
    shapes: Shapes = Shapes()
    other_layouts: bool = False

    @property
    def product(self) -> Product:
        return PRODUCTS[self.format]

    @property
    def title(self) -> str:
        """In words, without where."""
        return f"INT4 weights in {layout_in_words(self.weights)}" if self.format == "int4" else self.kind

    @property
    def kind(self) -> str:
        """The same without its granularity."""
        if self.operator == "attention":
            return f"{self.product.title} attention"
        return (
            "INT4 weights in blocks" if self.format == "int4" else f"{self.product.title} products with stored weights"
        )

    @property
    def told(self) -> str:
        """In words, with the GPUs that have it."""
        if self.since is None:
            return self.title
        return f"{self.title} on GPUs of compute capability {in_words(self.since)} or newer"

    @property
    def blocks(self) -> frozenset[int]:
        """The block lengths of its weights."""
        return frozenset(one for one in self.weights if isinstance(one, int))

    def runs_on(self, capability: ComputeCapability | None) -> bool:
        """Whether a GPU has it, so far as is known."""
        return capability is None or self.since is None or capability >= self.since

    def broken_rule(self, head_size: int | None, tokens: int) -> str | None:
        """The rule that keeps this attention from fusing in this format, or None where it fuses."""
        sizes, most, least = self.shapes.head_sizes, self.shapes.most_tokens, self.shapes.least_tokens
        if sizes is not None and head_size is not None and head_size not in sizes:
            return f"head size {head_size} is not one of {sorted(sizes)}"
        if most is not None and tokens > most:
            return f"{tokens} tokens are more than {most}"
        if tokens < least:
            return f"{tokens} tokens are fewer than the {least} of {self.title}"
        return None

    def both(self, other: Kernel) -> Kernel:
        """What two targets execute of the same product. In attention whoever is faster in it decides."""
        later = [one.since for one in (self, other) if one.since is not None]
        return Kernel(
            self.format,
            self.operator,
            self.weights & other.weights,
            self.activations & other.activations,
            max(later, default=None),
            self.native and other.native,
            self.faster or other.faster,
            min(self.zero_points, other.zero_points, key=_ZERO_POINTS.index),
            tuple((one, _widened(one, (self, other))) for one, _ in self.packed if one in dict(other.packed)),
            max(self.least_size, other.least_size),
            self.pooled and other.pooled,
            self.convolution and other.convolution,
            self.shapes.both(other.shapes),
            self.other_layouts and other.other_layouts,
        )


_ZERO_POINTS: tuple[ZeroPoints, ...] = ("none", "costly", "free")


def _widened(form: str, kernels: tuple[Kernel, ...]) -> Widened:
    return "folded" if all(dict(one.packed).get(form) == "folded" for one in kernels) else "unpacked"


def in_words(capability: ComputeCapability) -> str:
    """As in "8.9"."""
    return f"{capability[0]}.{capability[1]}"


def layout_in_words(layout: Layout) -> str:
    """Such as "channel or tensor" or "blocks of 64, 128"."""
    blocks = ", ".join(str(size) for size in sorted(one for one in layout if isinstance(one, int)))
    names = sorted(str(one) for one in layout if not isinstance(one, int))
    return " or ".join([*names, *([f"blocks of {blocks}"] if blocks else [])])
