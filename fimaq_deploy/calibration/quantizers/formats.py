"""Floating-point formats of 8 and 4 bits: their values, where they saturate, and the types that store them.

Pure data. A format is what its bits say: a sign, an exponent with a bias, a mantissa; the exponent 0 is subnormal.
There is no infinity: what lies beyond the largest value becomes it (ONNX: `saturate`). Rounding is to the nearest
value, and between two to the one whose last bit is 0. Sources: Micikevicius et al., "FP8 Formats for Deep Learning"
(2022); Open Compute Project, "Microscaling Formats (MX) v1.0" (2023); ONNX, "Float stored in 8 bits" and "Float stored
in 4 bits".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format without infinities.

    name: as recipes and saved plans have it. exponent, mantissa: bits of each; a sign is added. has_nan: whether the
    bits of the largest exponent and mantissa mean NaN. onnx: the type of ONNX that stores it. torch: the type that
    holds its values in PyTorch, exactly, if in more bits.
    """

    name: str
    exponent: int
    mantissa: int
    has_nan: bool
    onnx: str
    torch: str

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
        """Every value from 0 to the largest, in order; the negative ones mirror them."""
        steps = 2**self.mantissa
        codes = range(2**self.exponent * steps - self.has_nan)
        return tuple(self._value(*divmod(code, steps)) for code in codes)

    def _value(self, exponent: int, mantissa: int) -> float:
        fraction = mantissa / 2**self.mantissa
        if exponent == 0:
            return float(fraction * 2.0**self.least_exponent)
        return float((1 + fraction) * 2.0 ** (exponent - self.bias))

    @property
    def largest(self) -> float:
        return self.values[-1]


# E4M3 of FP8: 0, then 2^-9 to 448. A bias of 7.
E4M3 = FloatFormat("fp8", exponent=4, mantissa=3, has_nan=True, onnx="FLOAT8E4M3FN", torch="float8_e4m3fn")
# E2M1 of FP4: 0, ½, 1, 1½, 2, 3, 4, 6. torch has no type for one of them, and each is a value of E4M3 too.
E2M1 = FloatFormat("fp4", exponent=2, mantissa=1, has_nan=False, onnx="FLOAT4E2M1", torch="float8_e4m3fn")

FORMATS = {one.name: one for one in (E4M3, E2M1)}
