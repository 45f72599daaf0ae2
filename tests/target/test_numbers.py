"""The values of each format, from ml_dtypes, which knows them by itself."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import defs

from fimaq_deploy.target.numbers import (
    BFLOAT16,
    E2M1,
    E4M3,
    FLOAT16,
    FLOAT32,
    FORMATS,
    NUMBERS,
    FloatFormat,
    IntegerFormat,
)

KNOWN = {"fp8": ml_dtypes.float8_e4m3fn, "fp4": ml_dtypes.float4_e2m1fn}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_format_has_the_values_of_its_bits(form: FloatFormat) -> None:
    codes = np.arange(2 ** (form.bits - 1), dtype=np.uint8)
    known = codes.view(KNOWN[form.name]).astype(np.float64)
    assert form.values == tuple(known[np.isfinite(known)])
    assert form.has_nan == bool(np.isnan(known).any())
    assert form.largest == float(ml_dtypes.finfo(KNOWN[form.name]).max)


def test_what_is_said_of_them() -> None:
    assert E2M1.values == (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    assert (E4M3.largest, E4M3.values[1], E4M3.bits, E4M3.bias, len(E4M3.values)) == (448, 2**-9, 8, 7, 127)


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_each_is_stored_in_the_type_of_onnx_that_it_says(numbers: IntegerFormat | FloatFormat) -> None:
    kind = ir.DataType[numbers.onnx]
    assert kind.itemsize * 8 == numbers.bits
    if isinstance(numbers, IntegerFormat):
        known = ml_dtypes.iinfo(kind.numpy())
        assert (numbers.low, numbers.high, len(numbers.values)) == (known.min, known.max, 2**numbers.bits)
    else:
        assert numbers.largest == float(ml_dtypes.finfo(kind.numpy()).max)


@pytest.mark.parametrize("numbers", [one for one in NUMBERS.values() if one is not FLOAT32], ids=lambda one: one.name)
def test_an_opset_before_it_has_no_such_quantized_type(numbers: IntegerFormat | FloatFormat) -> None:
    """By the types of onnx's own schemas: of what DequantizeLinear reads, or of floats that scales are."""
    kind, parameter = f"tensor({numbers.onnx.lower()})", 1 if numbers in (FLOAT16, BFLOAT16) else 0

    def known(opset: int) -> bool:
        schema = defs.get_schema("DequantizeLinear", opset, "")
        return kind in schema.inputs[parameter].types

    assert known(numbers.opset) and (numbers.opset == 10 or not known(numbers.opset - 1))


def test_halves_have_infinities() -> None:
    assert (FLOAT16.largest, FLOAT16.values[1], len(FLOAT16.values)) == (65504, 2**-24, 31 * 1024)
    assert not FLOAT16.saturates and not BFLOAT16.saturates and all(one.saturates for one in FORMATS.values())
