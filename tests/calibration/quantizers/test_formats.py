"""The values of each format, from ml_dtypes, which knows them by itself."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fimaq_deploy.calibration.quantizers.formats import E2M1, E4M3, FORMATS, FloatFormat

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
