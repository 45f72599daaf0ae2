"""The kernels themselves, on a GPU or by Triton's interpreter, against torch's operators on the CPU."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.fake_quant import fake_quantize
from fimaq_deploy.calibration.quantizers.ops import quantize_dequantize

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def fused() -> ModuleType:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused import fake_quantize as fused

    return fused


def with_gradients(result: Tensor, *inputs: Tensor) -> list[Tensor]:
    gradient = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.device)
    return [each.cpu() for each in (result.detach(), *torch.autograd.grad(result, inputs, gradient))]


def there(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(each.detach().to(DEVICE).requires_grad_(each.requires_grad) for each in tensors)


@pytest.mark.parametrize("shape", [(3, 7, 33), (5000,), (2, 9, 300)])
@pytest.mark.parametrize(("offset", "top"), [(3.4, 15), (0.0, 7), (128.0, 255), (2.5, 15), (3.5, 15)])
@pytest.mark.parametrize("dropped", [0.0, 0.3, 1.0])
def test_results_and_gradients_are_those_of_torch(
    fused: ModuleType, shape: tuple[int, ...], offset: float, top: int, dropped: float
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape) * 2, torch.tensor(0.13), torch.tensor(offset)
    inputs = [each.requires_grad_() for each in values]
    drawn = torch.rand((*shape[:-1], 1)) if dropped else None
    expected = with_gradients(fake_quantize(*inputs, top, drawn if drawn is None else drawn < dropped), *inputs)
    moved = there(*inputs)
    found = with_gradients(
        fused.FakeQuantize.apply(*moved, top, drawn if drawn is None else drawn.to(DEVICE), dropped), *moved
    )
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)  # sums in another order


def test_many_blocks_for_each_program(fused: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from fimaq_deploy.calibration.fused import tiles

    monkeypatch.setattr(tiles, "PROGRAMS", 3)
    inputs = torch.randn(400, 101).requires_grad_(), torch.tensor(0.2).requires_grad_()
    expected = with_gradients(fake_quantize(*inputs, torch.tensor(7.0), 15), *inputs)
    moved = there(*inputs)
    found = with_gradients(fused.FakeQuantize.apply(*moved, torch.tensor(7.0, device=DEVICE), 15, None), *moved)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-3)


def frozen(fused: ModuleType, x: Tensor, scale: float, offset: float, top: int) -> Tensor:
    return fused.quantize_dequantize(*there(x, torch.tensor(scale), torch.tensor(offset)), top).cpu()


def test_what_is_no_number_stays_none(fused: ModuleType) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 0.5, 1.5, 2.5])
    found = frozen(fused, x, 1.0, 4.0, 15)
    torch.testing.assert_close(found, fake_quantize(x, torch.tensor(1.0), torch.tensor(4.0), 15), equal_nan=True)
    assert found[0].isnan() and found[5:].tolist() == [0.0, 2.0, 2.0]


@pytest.mark.parametrize("zero_point", [0, -3, 100])
def test_frozen_numbers_are_the_operator_s(fused: ModuleType, zero_point: int) -> None:
    x = torch.randn(4, 100) * 3
    expected = quantize_dequantize(x, torch.tensor(0.0371), zero_point, -128, 127)
    assert torch.equal(frozen(fused, x, 0.0371, zero_point + 128, 255), expected)


def test_halves_are_computed_as_floats(fused: ModuleType) -> None:
    x = torch.randn(1000).half()
    expected = fake_quantize(x.float(), torch.tensor(0.3), torch.tensor(7.0), 15).half()
    assert torch.equal(frozen(fused, x, 0.3, 7.0, 15), expected)


def views() -> list[Tensor]:
    """Of one tensor, each with its own strides."""
    whole = torch.randn(2, 5, 3, 4, 24)
    q, k, v = whole.permute(2, 0, 3, 1, 4).unbind(0)
    return [
        q,
        v,
        k.transpose(-2, -1),
        whole[:, 1],
        whole[0, :, 0],
        whole[..., ::2],
        whole.transpose(0, 3),
        whole[0, 0, 0, 0, ::3],
    ]


@pytest.mark.parametrize("number", range(8))
def test_views_are_read_where_they_lie(fused: ModuleType, number: int) -> None:
    torch.manual_seed(0)
    x = views()[number]
    drawn = torch.rand((*x.shape[:-1], 1))
    inputs = x.detach().requires_grad_(), torch.tensor(0.2).requires_grad_(), torch.tensor(5.0).requires_grad_()
    expected = with_gradients(fake_quantize(*inputs, 15, drawn < 0.4), *inputs)
    moved = there(*inputs)
    assert moved[0].stride() == x.stride()
    found = with_gradients(fused.FakeQuantize.apply(*moved, 15, drawn.to(DEVICE), 0.4), *moved)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_under_autocast_the_result_is_what_a_product_reads(fused: ModuleType) -> None:
    inputs = torch.randn(6, 40).requires_grad_(), torch.tensor(0.1).requires_grad_(), torch.tensor(7.0).requires_grad_()
    expected = with_gradients(fake_quantize(*inputs, 15).bfloat16(), *inputs)
    moved = there(*inputs)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = with_gradients(fused.FakeQuantize.apply(*moved, 15), *moved)
    assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], expected[0], rtol=2**-7, atol=0)  # Triton's interpreter cuts digits off
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dropped", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gelu_in_front_is_torchs(fused: ModuleType, dtype: torch.dtype, dropped: float) -> None:
    torch.manual_seed(0)
    x, scale, offset = torch.randn(40, 70).mul(2).to(dtype), torch.tensor(0.21), torch.tensor(1.0)
    steps = torch.nn.functional.gelu(x.float()) / scale
    x = torch.where((steps - steps.floor() - 0.5).abs() < 1e-3, x + 0.125, x)  # no tie is decided by a last digit
    drawn = torch.rand(40, 1) if dropped else None
    inputs = [each.requires_grad_() for each in (x, scale, offset)]
    kept = drawn if drawn is None else drawn < dropped
    expected = with_gradients(fake_quantize(torch.nn.functional.gelu(x.float()), scale, offset, 15, kept), *inputs)
    moved = there(*inputs)
    drawn = drawn if drawn is None else drawn.to(DEVICE)
    found = with_gradients(fused.FakeQuantize.apply(*moved, 15, drawn, dropped, True).float(), *moved)
    close = 1e-5 if dtype is torch.float32 else 2**-6
    for one, other in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=max(close, 1e-4), atol=0.05 if dtype is torch.bfloat16 else 1e-3)
