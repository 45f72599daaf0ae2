from __future__ import annotations

from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.devices import find_device

ELSEWHERE = [
    "mps",
    "meta",
    "xpu",
    "privateuseone",
    "hpu",
    "vulkan",
    "ipu",
    "mtia",
    "xla",
    "lazy",
    "fpga",
    "maia",
    "hip",
]


def message(device: Any) -> str:
    with pytest.raises(UserError) as caught:
        find_device(device)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    return str(caught.value)


def test_the_host() -> None:
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ELSEWHERE)
def test_a_device_that_torch_knows_and_cannot_compute_on(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    assert message(device).startswith((f"device '{device}", "device 'hip")), device
    assert "torch cannot compute there (" in message(device)


@pytest.mark.parametrize(
    "device", ["gpu", "", " ", "cuda:x", "cuda:-1", "CPU", "cpu cuda", "x" * 300, None, 2.5, "tpu"]
)
def test_no_device_at_all(device: Any) -> None:
    assert "expected cpu, cuda or cuda:N" in message(device)


def test_a_gpu_that_is_not_there() -> None:
    absent = f"cuda:{max(99, torch.cuda.device_count())}"
    expected = "counted from 0" if torch.cuda.is_available() else "torch sees no CUDA device here"
    assert f"device '{absent}': " in message(absent)
    assert expected in message(absent)
