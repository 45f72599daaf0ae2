"""The kernels themselves, on a GPU or by Triton's interpreter, against torch's operators on the CPU."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.device import Host
from fimaq_deploy.calibration.quantizers import rounding
from fimaq_deploy.calibration.quantizers.fake_quant import WeightQuantizer
from fimaq_deploy.calibration.quantizers.grid import WeightGrid
from fimaq_deploy.calibration.quantizers.straight_through import RoundedWeight

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def fused() -> ModuleType:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused import weights as fused

    return fused


def drawn(shape: tuple[int, int], blocks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latent weights with ties, deltas, a scale for each block of each row, and a gradient."""
    torch.manual_seed(0)
    latent = torch.where(torch.rand(shape) < 0.3, torch.randint(-9, 9, shape) + 0.5, torch.randn(shape) * 6)
    delta = torch.where(torch.rand(shape) < 0.5, 0.0, torch.rand(shape) - 0.5)
    return latent, delta, torch.rand(shape[0], blocks) + 0.1, torch.randn(shape)


def by_torch(
    latent: Tensor, delta: Tensor, scale: Tensor, grad: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    delta, scale = delta.clone().requires_grad_(), scale.clone().requires_grad_()
    every = scale if scale.shape[1] == 1 else scale.repeat_interleave(latent.shape[1] // scale.shape[1], 1)
    out = RoundedWeight.apply(latent, delta, every, low, high)
    return out.detach(), *torch.autograd.grad(out, (delta, scale), grad)


def by_kernels(
    fused: ModuleType, latent: Tensor, delta: Tensor, scale: Tensor, grad: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    latent, delta, scale, grad = (each.to(DEVICE) for each in (latent, delta, scale, grad))
    delta, scale = delta.requires_grad_(), scale.requires_grad_()
    out = fused.RoundedWeight.apply(latent, delta, scale, low, high)
    found = out.detach(), *torch.autograd.grad(out, (delta, scale), grad.to(out.dtype))
    return tuple(each.cpu() for each in found)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((5, 33), 1), ((1, 1), 1), ((37, 384), 1), ((3, 4100), 1), ((7, 96), 6), ((9, 60), 4), ((2, 5000), 2)],
)
@pytest.mark.parametrize(("low", "high"), [(-4, 3), (-8, 7), (-128, 127)])
def test_weights_and_gradients_are_those_of_torch(
    fused: ModuleType, shape: tuple[int, int], blocks: int, low: int, high: int
) -> None:
    given = drawn(shape, blocks)
    expected, found = by_torch(*given, low, high), by_kernels(fused, *given, low, high)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=1e-5, atol=1e-3)  # sums in another order
    if shape[1] > 30 and high < 100:
        steps = given[0] + given[1]
        assert (steps > high + 1).any() and (steps < low - 1).any() and (expected[1] == 0).any()


def test_ties_go_to_even_and_the_outermost_integers_are_not_pulled(fused: ModuleType) -> None:
    latent = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6, -3.4, -3.6, 900.0, -900.0, float("inf")]])
    delta, scale, grad = torch.zeros_like(latent), torch.tensor([[0.5]]), torch.ones_like(latent)
    out, of_delta, of_scale = by_kernels(fused, latent, delta, scale, grad, -4, 3)
    assert (out / 0.5).tolist() == [[0, 2, 2, 0, -2, 2, 3, -3, -4, 3, -4, 3]]
    assert (of_delta / 0.5).tolist() == [[1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0]]
    assert of_scale.item() == 0 + 2 + 2 + 0 - 2 + 2 + 3 - 3 - 4 + 3 - 4 + 3


def test_what_is_no_number_stays_none(fused: ModuleType) -> None:
    latent = torch.tensor([[float("nan"), 1.0]])
    out, *_ = by_kernels(fused, latent, torch.zeros(1, 2), torch.ones(1, 1), torch.ones(1, 2), -4, 3)
    assert out[0, 0].isnan() and out[0, 1] == 1


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_weights_have_the_type_of_products(fused: ModuleType, blocks: int, dtype: torch.dtype) -> None:
    latent, delta, scale, grad = drawn((11, 72), blocks)
    grad = grad.to(dtype)  # as it comes back through the cast
    expected = by_torch(latent, delta, scale, grad.float(), -8, 7)
    with torch.autocast(DEVICE, dtype):
        out, of_delta, of_scale = by_kernels(fused, latent, delta, scale, grad, -8, 7)
    assert (out.dtype, of_delta.dtype, of_scale.dtype) == (dtype, torch.float32, torch.float32)
    assert_rounded(out, expected[0])
    assert torch.equal(of_delta, expected[1])
    torch.testing.assert_close(of_scale, expected[2], rtol=1e-5, atol=1e-4)


def assert_rounded(found: Tensor, expected: Tensor) -> None:
    """To the nearest, where the interpreter cuts digits of bfloat16 off."""
    if found.dtype is torch.bfloat16 and DEVICE == "cpu":
        torch.testing.assert_close(found.float(), expected, rtol=2.0**-7, atol=0)
    else:
        assert torch.equal(found, expected.to(found.dtype))


def test_a_gradient_may_lie_in_another_order(fused: ModuleType) -> None:
    latent, delta, scale, _ = drawn((6, 20), 1)
    grad = torch.randn(20, 6).t()
    expected, found = by_torch(latent, delta, scale, grad, -8, 7), by_kernels(fused, latent, delta, scale, grad, -8, 7)
    assert torch.equal(found[1], expected[1])


def test_scales_that_are_not_learned_have_no_gradient(fused: ModuleType) -> None:
    latent, delta, scale, grad = (each.to(DEVICE) for each in drawn((6, 20), 1))
    out = fused.RoundedWeight.apply(latent, delta.requires_grad_(), scale, -8, 7)
    out.backward(grad)
    assert scale.grad is None
    assert torch.equal(delta.grad.cpu(), by_torch(*drawn((6, 20), 1), -8, 7)[1])


@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_quantizer_learns_the_same_from_kernels(
    fused: ModuleType, monkeypatch: pytest.MonkeyPatch, block: int | None, dtype: torch.dtype
) -> None:
    """Through the scale's logarithm and a product. A CPU that fuses takes the kernels in the interpreter."""
    torch.manual_seed(0)
    weight, x = torch.randn(24, 48) * 0.1, torch.randn(10, 48)

    def learned(device: str) -> tuple[torch.dtype, list[Tensor]]:
        quantizer = WeightQuantizer(WeightGrid(3, block), *weight.shape).requires_grad_(False)
        quantizer.scale.fill_(0.05)
        quantizer.latent.copy_(quantizer.steps(weight))
        soft = rounding.attach(quantizer.to(device), "straight_through")
        assert soft is not None
        leaves = [*soft.parameters(), *quantizer.learn_scale()]
        with torch.autocast(device, torch.float16, enabled=dtype is torch.float16):
            made = quantizer()
            out = torch.nn.functional.linear(x.to(device), made).float()
        gradients = torch.autograd.grad(out.square().sum(), leaves)
        return made.dtype, [each.cpu() for each in (out.detach(), *gradients)]

    kind, expected = learned("cpu")
    assert kind is torch.float32
    monkeypatch.setattr(Host, "fuses", True)
    kind, found = learned(DEVICE)
    assert kind is dtype
    close = 1e-4 if dtype is torch.float32 else 1e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)
    if DEVICE == "cpu":
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
