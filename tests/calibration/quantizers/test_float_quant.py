"""Fake quantizers on grids of floats: what they compute, what they learn, and that they freeze to the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.learning.scale_search import best_weight_scale, search_activations
from fimaq_deploy.calibration.quantizers.fake_quant import short_scale
from fimaq_deploy.calibration.quantizers.grid import FP8_SOFTMAX, FloatActivationGrid, FloatWeightGrid
from fimaq_deploy.calibration.quantizers.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear, freeze, thaw
from fimaq_deploy.calibration.quantizers.nearest import nearest
from fimaq_deploy.calibration.quantizers.of_grid import activation_quantizer, weight_quantizer
from fimaq_deploy.recipe import Rounding
from fimaq_deploy.target.numbers import E4M3

WEIGHTS, INPUTS = FloatWeightGrid("fp8"), FloatActivationGrid("fp8")


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gradients_pass_inside_the_range_and_scales_learn_from_the_error() -> None:
    quantizer = activation_quantizer(INPUTS)
    with torch.no_grad():
        quantizer.scale.fill_(0.25)
    quantizer.enabled = True
    quantizer.learn(0.0, 0.01)
    assert quantizer.log_scale is not None
    x = torch.tensor([0.3, -1.7, 200.0, -500.0], requires_grad=True)
    y = quantizer(x)
    assert torch.equal(y.detach(), nearest(x.detach() / 0.25, E4M3) * 0.25)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 1, 0, 0]
    # As LSQ: what is inside contributes its rounding error, what is outside the bound; times the scale for a logarithm.
    inside = (y - x).detach()[:2].sum()
    assert quantizer.log_scale.grad == pytest.approx(float(inside + y.detach()[2:].sum()), rel=1e-5)


def test_rows_that_are_dropped_stay_as_they_are() -> None:
    quantizer = activation_quantizer(INPUTS)
    quantizer.enabled, quantizer.drop = True, 1.0
    x = numbers(3, 5)
    assert torch.equal(quantizer(x), x)


def test_the_scale_of_a_softmax_is_known_beforehand() -> None:
    quantizer = activation_quantizer(FP8_SOFTMAX, nonnegative=True).requires_grad_(False)
    scale = quantizer.scale.clone()
    assert scale.item() == pytest.approx(1 / 448, rel=1e-3) and torch.equal(scale.half().float(), scale)
    search_activations([quantizer], [torch.rand(100)], 16)
    assert quantizer.learn(0.25, 0.1) == []
    quantizer.settle()
    quantizer.freeze()
    assert torch.equal(quantizer.scale, scale)


@pytest.mark.parametrize("candidates", [1, 64])
def test_a_search_covers_the_tensor_or_does_better(candidates: int) -> None:
    x = numbers(4096)
    extremes, searched = (activation_quantizer(INPUTS).requires_grad_(False) for _ in range(2))
    extremes.set_bounds(x.amin(), x.amax())
    search_activations([searched], [x], candidates)
    errors = []
    for each in (extremes, searched):
        each.enabled = True
        errors.append(float((each(x) - x).square().mean()))
    assert errors[1] == errors[0] if candidates == 1 else errors[1] <= errors[0]


def test_the_scales_of_weights_are_short_and_never_below_what_float16_has_in_full() -> None:
    weight = numbers(6, 32) * torch.logspace(-8, 1, 6)[:, None]
    found = best_weight_scale(WEIGHTS, weight, torch.ones(1, 32), 32)
    assert torch.equal(found, short_scale(found, WEIGHTS.scale_digits)) and found.min() >= 2**-14
    dequantized = nearest(weight / found, E4M3) * found
    exact = dequantized.abs() >= 2**-14
    assert torch.equal(dequantized[exact].half().float(), dequantized[exact])


@pytest.mark.parametrize("kind", ["nearest", "adaround", "straight_through", "sign_gradient"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(8, 6), lambda: nn.Conv2d(3, 4, 2)], ids=["linear", "conv"])
def test_a_layer_freezes_to_what_it_learned_and_thaws_again(kind: Rounding, make: object) -> None:
    from fimaq_deploy.calibration.quantizers import rounding

    layer = make()  # type: ignore[operator]
    of = QuantizedLinear if isinstance(layer, nn.Linear) else QuantizedConv2d
    made: QuantizedLayer = of(layer, WEIGHTS, INPUTS).requires_grad_(False)
    scale = best_weight_scale(WEIGHTS, made.matrix, torch.ones(1, made.matrix.shape[1]), 8)
    made.weight_quantizer.scale.copy_(scale)
    made.weight_quantizer.latent.copy_(made.matrix / scale)
    made.enable(True)
    rounding.attach(made.weight_quantizer, kind)
    rounding.harden(made.weight_quantizer)
    x = numbers(2, 3, 4, 4) if isinstance(layer, nn.Conv2d) else numbers(2, 8)
    learned = made(x)
    freeze(made)
    assert made.q_weight.dtype is torch.float8_e4m3fn
    assert torch.allclose(made(x), learned, rtol=1e-6, atol=1e-6)
    thaw(made)
    assert torch.allclose(made(x), learned, rtol=1e-6, atol=1e-6)


def test_weights_saturate() -> None:
    quantizer = weight_quantizer(WEIGHTS, 1, 3).requires_grad_(False)
    quantizer.latent.copy_(torch.tensor([[-1000.0, 1.06, 449.0]]))
    assert quantizer().tolist() == [[-448.0, 1.0, 448.0]]
