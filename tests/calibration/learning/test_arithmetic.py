from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fimaq_deploy.calibration.device import Host
from fimaq_deploy.calibration.learning.arithmetic import flushed_denormals, matmul_precision
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.recipe import Precision

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


@pytest.fixture
def careless() -> Iterator[None]:
    """What many training scripts set for the whole process."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def switches() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("precision", ["auto", "float32", "tf32"])
def test_a_cpu_computes_in_float32_whatever_was_set_before(precision: Precision) -> None:
    with matmul_precision(CPU, precision):
        assert switches() == ("highest", False)
    assert switches() == ("medium", True)


@pytest.mark.usefixtures("careless")
def test_a_device_with_tensor_cores_rounds_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "tensor_cores", True)
    for precision, expected in (("auto", ("high", True)), ("tf32", ("high", True)), ("float32", ("highest", False))):
        with matmul_precision(CPU, precision):
            assert switches() == expected
    assert switches() == ("medium", True)


@pytest.mark.usefixtures("careless")
def test_a_model_is_quantized_in_float32_whatever_was_set_before(
    tiny_vit: Callable[..., Any], random_images: Callable[..., Any], quick_recipe: Callable[..., Any]
) -> None:
    """Proofs that a copy computes the same, and searches, know nothing of rounded products."""
    seen: list[tuple[str, bool]] = []
    quantize(tiny_vit(), random_images(16), quick_recipe(), progress=lambda *_: seen.append(switches()))
    assert set(seen) == {("highest", False)}
    assert switches() == ("medium", True)
