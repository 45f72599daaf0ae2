"""Grids: which values a quantized tensor can take. Pure data and integer arithmetic, no tensors.

A value of a grid is `scale * (q - zero_point)` with an integer q. Grids of at most seven bits with any zero point fit a
signed 8-bit container with zero point 0 when the offset is moved into the integer range: q - o runs over
[-o, 2**bits - 1 - o], a subset of [-128, 127]. Eight asymmetric bits need an unsigned container with a zero point,
which not every target executes. Rounding is half to even everywhere.

Scales are short: integer times scale never takes more than the 11 significant bits of a float16 (12 in an unsigned
8-bit container, which no float16 target executes). Then a dequantized value is exact in float16 and float32 alike, a
product of two has at most 24 bits, and float32 sums of such products hardly ever round. So it does not matter in which
order, or whether in integers or floats, a runtime adds them up.

Grids of floats have the values of a format of `target.numbers` in the place of the integers, and scales as short. A
scale of them that is twice as large loses nothing but subnormals, so none need be smaller than a float16 has in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fimaq_deploy.errors import UserError
from fimaq_deploy.target import Format, Target
from fimaq_deploy.target.kernels import layout_in_words
from fimaq_deploy.target.numbers import FORMATS, INT4, INT8, UINT8, FloatFormat

Scheme = Literal["symmetric", "asymmetric"]

FLOAT16_DIGITS = 10  # behind the point of a significand


@dataclass(frozen=True)
class IntegerRange:
    """The integers of a grid and the zero point that its container stores. Bounds are inclusive."""

    low: int
    high: int
    zero_point: int = 0

    @property
    def fits_int8(self) -> bool:
        return self.zero_point == 0 and self.low >= INT8.low and self.high <= INT8.high

    @property
    def saturates_alone(self) -> bool:
        """Whether the container's own saturation clips exactly at this range, so no Clip is needed before it."""
        return (self.low, self.high) in {(INT8.low, INT8.high), (UINT8.low, UINT8.high)}


@dataclass(frozen=True)
class WeightGrid:
    """Symmetric signed weights: one scale per output channel, or per block of input channels."""

    bits: int
    block_size: int | None = None

    @property
    def storage(self) -> str:
        """The type of torch that holds frozen weights."""
        return "int8"

    @property
    def range(self) -> IntegerRange:
        return IntegerRange(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value, in units of the scale."""
        return self.range.low, self.range.high

    @property
    def scale_digits(self) -> int:
        """Of a scale. Blocks are multiplied with floats, whose sums round anyway: theirs may use all of float16."""
        return FLOAT16_DIGITS if self.block_size else FLOAT16_DIGITS + 1 - self.bits


@dataclass(frozen=True)
class ActivationGrid:
    """Per-tensor activations.

    scheme: symmetric integers around zero, or an offset (in [0, 2**bits - 1]) that calibration chooses.
    """

    bits: int
    scheme: Scheme

    @property
    def offsets(self) -> tuple[int, int]:
        """The smallest and largest offset o of the integer range [-o, 2**bits - 1 - o]."""
        if self.scheme == "symmetric":
            middle = 2 ** (self.bits - 1)
            return middle, middle
        return 0, 2**self.bits - 1

    @property
    def scale_digits(self) -> int:
        """An offset may put all bits on one side of zero; eight of them keep three digits all the same."""
        return FLOAT16_DIGITS + 1 - self.bits - (self.scheme == "asymmetric" and self.bits < 8)

    def range(self, offset: int) -> IntegerRange:
        """The integers of this grid for an offset, in the container that executes them."""
        top = 2**self.bits - 1
        if self.bits == 8 and self.scheme == "asymmetric":
            return IntegerRange(0, top, offset)
        return IntegerRange(-offset, top - offset)


@dataclass(frozen=True)
class FloatWeightGrid:
    """Weights in floats of a format of `target.numbers`, with one scale per output channel, or one per block of inputs.

    Scales of blocks are values of E4M3 themselves, times one number for the whole tensor (NVFP4).
    """

    format: str
    block_size: int | None = None

    @property
    def product(self) -> Format:
        """What computes with it, as targets name it."""
        return "nvfp4" if self.block_size else "fp8"

    @property
    def values(self) -> FloatFormat:
        return FORMATS[self.format]

    @property
    def bits(self) -> int:
        return self.values.bits

    @property
    def storage(self) -> str:
        """The type of torch that holds frozen weights."""
        return self.values.torch

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value, in units of the scale."""
        return -self.values.largest, self.values.largest

    @property
    def scale_digits(self) -> int:
        return FLOAT16_DIGITS if self.block_size else FLOAT16_DIGITS - 1 - self.values.mantissa


@dataclass(frozen=True)
class FloatActivationGrid:
    """Per-tensor activations in a floating-point format of `target.numbers`.

    scale: where it is known beforehand and not learned. block_size: so many values along the last axis have a scale of
    their own, in E4M3, which is made of them while the model runs; the scale of the tensor is for those scales (NVFP4).
    """

    format: str
    scale: float | None = None
    block_size: int | None = None

    @property
    def values(self) -> FloatFormat:
        return FORMATS[self.format]

    @property
    def bits(self) -> int:
        return self.values.bits

    @property
    def scale_digits(self) -> int:
        return FLOAT16_DIGITS if self.scale or self.block_size else FLOAT16_DIGITS - 1 - self.values.mantissa


AnyWeightGrid: TypeAlias = WeightGrid | FloatWeightGrid
AnyActivationGrid: TypeAlias = ActivationGrid | FloatActivationGrid

# What a softmax returns, at most 1, over all of E4M3: 1/448 as a float16 has it, the scale of fused FP8 attention.
FP8_SOFTMAX = FloatActivationGrid("fp8", scale=2340 / 2**20)


def activation_grid(
    bits: int, scheme: Literal["auto", "symmetric", "asymmetric"], target: Target, *, nonnegative: bool = False
) -> ActivationGrid:
    """The grid for a number of bits that a target executes; `auto` is asymmetric wherever that costs no time.

    nonnegative: the tensor has no values below zero. Its offset is 0, and an unsigned container whose zero point is 0
        costs no kernel anything.

    Raises:
        UserError: the target cannot execute the grid that was asked for.
    """
    zero_points = target.integers.zero_points
    executable = bits < 8 or zero_points != "none"
    if scheme == "auto":
        free = bits < 8 or zero_points == "free" or (zero_points == "costly" and nonnegative)
        return ActivationGrid(bits, "asymmetric" if free else "symmetric")
    if scheme == "asymmetric" and not executable:
        raise UserError(
            f"asymmetric 8-bit activations cannot run on target {target.name}: "
            "it executes symmetric 8 bits, and 6, 4 or 3 bits of either scheme; set activations.scheme to 'auto'"
        )
    return ActivationGrid(bits, scheme)


def weight_grid(bits: int, block_size: int | None, target: Target) -> WeightGrid:
    """The weight grid for a number of bits; a block size means INT4 weight-only.

    Raises:
        UserError: the target cannot execute the grid that was asked for.
    """
    if block_size is None:
        return WeightGrid(bits)
    refusal, kernel = target.refusal("int4", "layer"), target.kernel("int4", "layer")
    if refusal or kernel is None:
        raise UserError(f"weights in blocks of {block_size}: {refusal}")
    if bits != INT4.bits or block_size not in kernel.blocks:
        raise UserError(
            f"{bits}-bit weights in blocks of {block_size} cannot run on target {target.name}: it executes "
            f"{INT4.bits} bits in {layout_in_words(kernel.weights)}, and 8, 6, 4, 3 or 2 bits per output channel"
        )
    return WeightGrid(bits, block_size)
