"""Attention's weights from one kernel are those of a softmax and a fake quantizer in torch's operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.quantizers.fake_quant import fake_quantize
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid
from fimaq_deploy.calibration.quantizers.layers import AttentionQuantizers

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLACE = type(of(torch.device(DEVICE)))


def quantized_softmax(*inputs: Tensor, factor: float, top: int, drawn: Tensor | None, share: float) -> Tensor:
    from fimaq_deploy.calibration.fused.softmax import QuantizedSoftmax

    scores, scale, offset = inputs
    found: Tensor = QuantizedSoftmax.apply(scores, factor, scale, offset, top, drawn, share)
    return found


def by_torch(*inputs: Tensor, factor: float, top: int, drawn: Tensor | None, share: float) -> Tensor:
    scores, scale, offset = inputs
    weights = (scores.float() * factor).softmax(-1)
    return fake_quantize(weights, scale, offset, top, None if drawn is None else drawn < share)


def with_gradients(way: Callable[..., Tensor], *inputs: Tensor, **options: object) -> list[Tensor]:
    leaves = [each.detach().to(DEVICE).requires_grad_() for each in inputs]
    result = way(*leaves, **options)
    pull = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result)
    return [each.detach().cpu() for each in (result, *torch.autograd.grad(result, leaves, pull))]


def off_ties(scores: Tensor, factor: float, scale: float) -> Tensor:
    """Scores none of whose weights is so near to a rounding's tie that the last digit of an exponential decides."""
    steps = (scores * factor).softmax(-1) / scale
    near = ((steps - steps.floor()) - 0.5).abs() < 1e-3
    return torch.where(near, scores + 0.05, scores)


@pytest.mark.parametrize("shape", [(2, 3, 5, 49), (1, 2, 7, 197), (3, 16), (5, 2050)])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(("factor", "offset", "top"), [(0.125, 0.0, 15), (1.0, 2.4, 7)])
def test_results_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], share: float, factor: float, offset: float, top: int
) -> None:
    torch.manual_seed(0)
    scale = 0.5 / shape[-1]
    scores = torch.randn(shape) * 8
    for _ in range(20):
        scores = off_ties(scores, factor, scale)
    drawn = torch.rand((*shape[:-1], 1)).to(DEVICE) if share else None
    options: dict[str, object] = {"factor": factor, "top": top, "drawn": drawn, "share": share}
    inputs = scores, torch.tensor(scale), torch.tensor(offset)
    expected = with_gradients(by_torch, *inputs, **options)
    found = with_gradients(quantized_softmax, *inputs, **options)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


def test_many_rows_for_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from fimaq_deploy.calibration.fused import tiles

    inputs = torch.randn(4, 50, 33), torch.tensor(0.01), torch.tensor(0.0)
    options: dict[str, object] = {"factor": 1.0, "top": 15, "drawn": None, "share": 0.0}
    once = with_gradients(quantized_softmax, *inputs, **options)
    monkeypatch.setattr(tiles, "PROGRAMS", 2)
    again = with_gradients(quantized_softmax, *inputs, **options)
    assert torch.equal(again[0], once[0]) and torch.equal(again[1], once[1])
    torch.testing.assert_close(again[2], once[2], rtol=1e-4, atol=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    scores = torch.randn(2, 9, 20).bfloat16()
    options: dict[str, object] = {"factor": 0.5, "top": 255, "drawn": None, "share": 0.0}
    inputs = scores, torch.tensor(1 / 255), torch.tensor(0.0)
    found = with_gradients(quantized_softmax, *inputs, **options)
    expected = with_gradients(by_torch, *inputs, **options)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[0], expected[0].bfloat16())
    torch.testing.assert_close(found[1], expected[1], rtol=2e-2, atol=1e-3)


def places() -> AttentionQuantizers:
    grid = ActivationGrid(bits=4, scheme="unsigned")
    found = AttentionQuantizers(grid, grid)
    found.softmax.enabled = True
    torch.nn.init.constant_(found.softmax.scale, 1 / 15)
    return found.to(DEVICE)


@pytest.mark.parametrize("scale", [None, 0.25, torch.full((2, 1, 1), 0.25)])
def test_attention_asks_for_it_where_kernels_are_fused(
    scale: float | Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    products, quantizers = torch.randn(3, 2, 6, 6, device=DEVICE), places()
    scale = scale.to(DEVICE) if isinstance(scale, Tensor) else scale
    monkeypatch.setattr(PLACE, "fuses", False)
    apart = quantizers.weights(products, scale)
    monkeypatch.setattr(PLACE, "fuses", True)
    fused = quantizers.softmax.of_softmax(products, 1.0)
    assert fused is not None
    torch.testing.assert_close(quantizers.weights(products, scale), apart)


def test_it_is_left_to_torch_where_something_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    products = torch.randn(1, 2, 6, 6, device=DEVICE)
    monkeypatch.setattr(PLACE, "fuses", False)
    assert places().softmax.of_softmax(products, 1.0) is None
    monkeypatch.setattr(PLACE, "fuses", True)
    frozen, off, floats = places(), places(), AttentionQuantizers(None, None).to(DEVICE)
    frozen.softmax.freeze()
    off.softmax.enabled = False
    for quantizers in (frozen, off, floats):
        assert quantizers.softmax.of_softmax(products, 1.0) is None
    torch.testing.assert_close(floats.weights(products, 0.5), (products * 0.5).softmax(-1))
