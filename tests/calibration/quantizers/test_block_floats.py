"""NVFP4: blocks whose scales are stored in 8 bits, of weights that learn and of activations while a model runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.learning.scale_search import best_weight_scale, search_activations
from fimaq_deploy.calibration.quantizers.block_floats import block_scales, storable, tensor_scale
from fimaq_deploy.calibration.quantizers.grid import FloatActivationGrid, FloatWeightGrid
from fimaq_deploy.calibration.quantizers.layers import BlockFloatLinear, freeze, thaw
from fimaq_deploy.calibration.quantizers.nearest import levels, nearest
from fimaq_deploy.calibration.quantizers.of_grid import activation_quantizer
from fimaq_deploy.target.numbers import E2M1, E4M3

WEIGHTS, INPUTS = FloatWeightGrid("fp4", 16), FloatActivationGrid("fp4", block_size=16)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Block by block, in NumPy and in loops."""
    known, scales = (levels(form).numpy() for form in (E2M1, E4M3))
    out = np.zeros(x.shape, np.float32)
    for place in np.ndindex(*x.shape[:-1], x.shape[-1] // 16):
        part = slice(16 * place[-1], 16 * place[-1] + 16)
        block = x.numpy()[(*place[:-1], part)]
        step = np.float32(np.abs(block).max()) / np.float32(6) / np.float32(scale)
        own = scales[np.abs(scales - step).argmin()].astype(np.float32) * np.float32(scale)
        if own:
            nearest_ones = known[np.abs(block[:, None] / own - known).argmin(1)]
            out[(*place[:-1], part)] = nearest_ones * own
    return torch.from_numpy(out)


def test_every_block_has_a_scale_of_its_own_and_an_empty_one_stays_empty() -> None:
    x = numbers(3, 5, 48) * torch.logspace(-3, 2, 15).view(3, 5, 1)
    x[1, 2, 16:32] = 0
    found = torch.ops.fimaq.quantize_dequantize_nvfp4(x, torch.tensor(2.0**-4), 16)
    torch.testing.assert_close(found, by_hand(x, 2.0**-4), rtol=1e-6, atol=0)
    assert not found[1, 2, 16:32].any()


@pytest.mark.parametrize("largest", [1e-4, 0.03, 1.0, 448.0, 5000.0])
def test_the_number_for_the_tensor_is_a_power_of_two_that_the_largest_scale_fits(largest: float) -> None:
    scales = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) * largest
    whole = tensor_scale(scales)
    assert torch.frexp(whole)[0] == 0.5 and scales.max() / whole <= 448 < 2.1 * scales.max() / whole
    stored = block_scales(scales, whole)
    assert torch.equal(nearest(stored, E4M3), stored) and (stored > 0).all()
    assert torch.equal(storable(storable(scales)), storable(scales))


def layer_of(seed: int = 0) -> BlockFloatLinear:
    torch.manual_seed(seed)
    layer = BlockFloatLinear(nn.Linear(64, 24), WEIGHTS, INPUTS).requires_grad_(False)
    scale = best_weight_scale(WEIGHTS, layer.matrix, torch.ones(1, 64), 8)
    layer.weight_quantizer.scale.copy_(scale)
    layer.weight_quantizer.latent.copy_(layer.matrix / layer.weight_quantizer.expand(scale))
    layer.enable(True)
    return layer


def test_a_layer_freezes_to_what_it_computes_and_thaws_again() -> None:
    layer, x = layer_of(), numbers(4, 64)
    search_activations([layer.input_quantizer], [x.flatten()], 4)
    learned = layer(x)
    freeze(layer)
    assert (layer.q_weight.dtype, layer.q_scale.dtype) == (torch.float8_e4m3fn, torch.float8_e4m3fn)
    assert layer.q_scale.shape == (4, 24)
    torch.testing.assert_close(layer(x), learned, rtol=1e-5, atol=1e-5)
    form = layer.stored_form()
    assert all(getattr(layer, name).shape == each.shape for name, each in form.items())
    assert all(getattr(layer, name).dtype == each.dtype for name, each in form.items())
    thaw(layer)
    torch.testing.assert_close(layer(x), learned, rtol=1e-5, atol=1e-5)


def test_scales_of_blocks_are_learned_and_used_as_they_are_stored() -> None:
    quantizer = layer_of().weight_quantizer
    (log_scale,) = quantizer.learn_scale()
    with torch.no_grad():
        log_scale += 0.3
    weight = quantizer()
    used = weight / quantizer.integers().where(quantizer.integers() != 0, torch.inf)
    scales = quantizer.expand(storable(log_scale.exp()))
    assert torch.allclose(used[used != 0], scales[used != 0], rtol=1e-6)
    weight.sum().backward()
    assert log_scale.grad is not None and log_scale.grad.abs().sum() > 0


def test_activations_learn_nothing_and_pass_every_gradient() -> None:
    quantizer = activation_quantizer(INPUTS).requires_grad_(False)
    x = numbers(2, 32)
    search_activations([quantizer], [x.flatten()], 8)
    assert quantizer.learn(0.0, 0.1) == [] and torch.frexp(quantizer.scale)[0] == 0.5
    quantizer.enabled = True
    x.requires_grad_()
    y = quantizer(x)
    y.sum().backward()
    assert x.grad is not None and (x.grad == 1).all()
    quantizer.freeze()
    assert torch.equal(quantizer(x.detach()), y.detach())
