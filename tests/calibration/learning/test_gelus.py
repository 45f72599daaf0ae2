"""A GELU is handed on to the quantizer behind it where that is its only reader and has a kernel for both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.mlp import GluMlp, Mlp
from torch import nn

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.learning.gelus import gelus_handed_on
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, FloatActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.layers import QuantizedLinear
from fimaq_deploy.models.families import parts

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


GRID = ActivationGrid(bits=8, scheme="asymmetric")


def quantized(mlp: Any, inputs: Any = GRID) -> Any:
    mlp.fc2 = QuantizedLinear(mlp.fc2, WeightGrid(8), inputs)
    quantizer = mlp.fc2.input_quantizer
    quantizer.enabled = True
    nn.init.constant_(quantizer.scale, 0.02)
    nn.init.constant_(quantizer.offset, 10)
    return mlp.to(DEVICE).eval().requires_grad_(False)


def chain_mlp(act: nn.Module | None = None, norm: nn.Module | None = None) -> parts.Mlp:
    return parts.Mlp(nn.Linear(8, 16), act or nn.GELU(), nn.Linear(16, 8), norm)


@pytest.fixture
def fuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    monkeypatch.setattr(type(of(DEVICE)), "fuses", True)


@pytest.mark.parametrize("make", [lambda: Mlp(8, 16), chain_mlp])
def test_the_answer_stays_and_the_gelu_comes_back(make: Any, fuses: None) -> None:
    mlp = quantized(make())
    x, act = torch.randn(5, 8, device=DEVICE), mlp.act
    expected, calls = mlp(x), []
    act.register_forward_hook(lambda *_: calls.append(1))
    with gelus_handed_on(mlp):
        torch.testing.assert_close(mlp(x), expected, atol=1e-3, rtol=1e-3)
    assert not calls and mlp.act is act and not mlp.fc2.input_quantizer.behind_gelu
    torch.testing.assert_close(mlp(x), expected)
    assert calls


@pytest.mark.parametrize("change", ["enabled", "frozen", "observer"])
def test_whenever_the_quantizer_does_something_else_the_gelu_is_computed(change: str, fuses: None) -> None:
    mlp = quantized(chain_mlp())
    x, quantizer = torch.randn(5, 8, device=DEVICE), mlp.fc2.input_quantizer
    seen: list[Any] = []
    if change == "frozen":
        quantizer.freeze()
    else:
        setattr(
            quantizer,
            change,
            {"enabled": False, "observer": type("Seen", (), {"add": lambda _, x: seen.append(x)})()}[change],
        )
    expected = mlp(x)
    with gelus_handed_on(mlp):
        torch.testing.assert_close(mlp(x), expected, atol=1e-3, rtol=1e-3)
    assert all(each.min() > -0.2 for each in seen), "what is observed is behind the GELU"


@pytest.mark.parametrize(
    "mlp",
    [
        lambda: quantized(GluMlp(8, 16)),
        lambda: quantized(chain_mlp(nn.GELU(approximate="tanh"))),
        lambda: quantized(chain_mlp(nn.ReLU())),
        lambda: quantized(chain_mlp(norm=nn.LayerNorm(16))),
        chain_mlp,
    ],
)
def test_other_networks_stay_as_they_are(mlp: Any, fuses: None) -> None:
    made = mlp()
    act = made.act
    with gelus_handed_on(made):
        assert made.act is act


def test_floats_compute_their_gelu_first(fuses: None) -> None:
    mlp = quantized(chain_mlp(), FloatActivationGrid("fp8"))
    x = torch.randn(5, 8, device=DEVICE)
    expected = mlp(x)
    with gelus_handed_on(mlp):
        torch.testing.assert_close(mlp(x), expected)


def test_without_kernels_nothing_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(of(DEVICE)), "fuses", False)
    mlp = quantized(chain_mlp())
    act = mlp.act
    with gelus_handed_on(mlp):
        assert mlp.act is act
