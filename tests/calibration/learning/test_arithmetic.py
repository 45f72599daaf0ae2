from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fimaq_deploy.calibration.learning.arithmetic import flushed_denormals, matmul_precision

CPU = torch.device("cpu")
SMALL = 2.0**-130  # a denormal number of float32


@pytest.fixture(autouse=True)
def _switches_as_they_were() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


def times_one() -> float:
    return float(torch.tensor(SMALL).mul(1.0))


@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_zero_inside_and_as_before_behind(before: bool) -> None:
    torch.set_flush_denormal(before)
    outside = times_one()
    with flushed_denormals():
        assert times_one() == 0
    assert times_one() == outside


def test_an_exception_puts_the_thread_back_too() -> None:
    torch.set_flush_denormal(False)
    with pytest.raises(ZeroDivisionError), flushed_denormals():
        raise ZeroDivisionError
    assert times_one() == SMALL


def test_bfloat16_rounds_products_and_float32_does_not() -> None:
    x = torch.tensor([[1 + 2.0**-12]])
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32), ("auto", torch.float32)):
        with matmul_precision(CPU, precision):
            assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_a_cpu_keeps_float32_whatever_was_set_before() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with matmul_precision(CPU, "tf32"):
            assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
