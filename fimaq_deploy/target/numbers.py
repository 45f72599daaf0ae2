"""Formats of numbers: their values, rounding, where they saturate, and the types that store them.

Pure data; what multiplies them is in `kernels`. Rounding is to the nearest value, and between two to the one whose last
bit is 0; what lies beyond the largest value becomes it (ONNX: `saturate`), but for the floats of 16 and 32 bits, in
which it becomes infinity. A small float is what its bits say: a sign, an exponent with a bias, a mantissa; the exponent
0 is subnormal. Sources: Micikevicius et al., "FP8 Formats for Deep Learning" (2022); Open Compute Project,
"Microscaling Formats (MX) v1.0" (2023); ONNX, "Float stored in 8 bits" and "Float stored in 4 bits"; IEEE 754.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

ROUNDING = "to nearest, ties to even"


@dataclass(frozen=True)
class IntegerFormat:
    """Integers of a container.

    name: as the table has it. bits: that a value takes in a file. signed: with two's complement. onnx: the type of ONNX
    that stores them, and opset: the first in which QuantizeLinear or DequantizeLinear takes it. torch: the type that
    holds the values in PyTorch, exactly, if in more bits.
    """

    name: str
    bits: int
    signed: bool
    onnx: str
    opset: int
    torch: str

    saturates = True

    @property
    def title(self) -> str:
        return self.onnx

    @property
    def low(self) -> int:
        return int(-(2 ** (self.bits - 1))) if self.signed else 0

    @property
    def high(self) -> int:
        return int(2 ** (self.bits - self.signed)) - 1

    @property
    def values(self) -> range:
        """Every value, in order."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True)
class FloatFormat:
    """Floats.

    name: as recipes and saved plans have it. exponent, mantissa: bits of each; a sign is added. has_nan: whether the
    bits of the largest exponent and mantissa mean NaN. onnx, opset, torch: as of `IntegerFormat`. has_infinity: whether
    the largest exponent means infinity and NaN, as in IEEE 754.
    """

    name: str
    exponent: int
    mantissa: int
    has_nan: bool
    onnx: str
    opset: int
    torch: str
    title: str
    has_infinity: bool = False

    @property
    def saturates(self) -> bool:
        """Whether what lies beyond the largest value becomes it."""
        return not self.has_infinity

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        return int(2 ** (self.exponent - 1) - 1)

    @property
    def least_exponent(self) -> int:
        """Of the normal values: below 2 to its power, neighbours lie as far apart as just above it."""
        return 1 - self.bias

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Every finite value from 0 to the largest, in order; the negative ones mirror them. Not of 32 bits."""
        return tuple(map(self._value, range(self._codes)))

    @property
    def _codes(self) -> int:
        """How many of the codes without a sign are finite values."""
        steps = int(2**self.mantissa)
        return int(2**self.exponent) * steps - (steps if self.has_infinity else self.has_nan)

    def _value(self, code: int) -> float:
        exponent, mantissa = divmod(code, int(2**self.mantissa))
        fraction = mantissa / 2**self.mantissa
        if exponent == 0:
            return float(fraction * 2.0**self.least_exponent)
        return float((1 + fraction) * 2.0 ** (exponent - self.bias))

    @property
    def largest(self) -> float:
        return self._value(self._codes - 1)


NumberFormat: TypeAlias = IntegerFormat | FloatFormat

INT8 = IntegerFormat("int8", 8, signed=True, onnx="INT8", opset=10, torch="int8")
UINT8 = IntegerFormat("uint8", 8, signed=False, onnx="UINT8", opset=10, torch="uint8")
INT4 = IntegerFormat("int4", 4, signed=True, onnx="INT4", opset=21, torch="int8")
UINT4 = IntegerFormat("uint4", 4, signed=False, onnx="UINT4", opset=21, torch="uint8")
# E4M3 of FP8: 0, then 2^-9 to 448. A bias of 7.
E4M3 = FloatFormat("fp8", 4, 3, has_nan=True, onnx="FLOAT8E4M3FN", opset=19, torch="float8_e4m3fn", title="FP8 (E4M3)")
# E2M1 of FP4: 0, ½, 1, 1½, 2, 3, 4, 6. torch has no type for one of them, and each is a value of E4M3 too.
E2M1 = FloatFormat("fp4", 2, 1, has_nan=False, onnx="FLOAT4E2M1", opset=23, torch="float8_e4m3fn", title="FP4 (E2M1)")
FLOAT16 = FloatFormat("float16", 5, 10, True, "FLOAT16", 19, "float16", "FP16", has_infinity=True)
BFLOAT16 = FloatFormat("bfloat16", 8, 7, True, "BFLOAT16", 19, "bfloat16", "BF16", has_infinity=True)
FLOAT32 = FloatFormat("float32", 8, 23, True, "FLOAT", 10, "float32", "FP32", has_infinity=True)

# Those of a few bits, by the names that grids have.
FORMATS = {one.name: one for one in (E4M3, E2M1)}
NUMBERS: dict[str, NumberFormat] = {
    one.name: one for one in (INT8, UINT8, INT4, UINT4, E4M3, E2M1, FLOAT16, BFLOAT16, FLOAT32)
}
