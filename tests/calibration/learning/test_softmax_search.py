"""Attention weights get the scale whose product with v is best, not the one that covers the largest weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.learning.scale_search import search_activations
from fimaq_deploy.calibration.learning.softmax_search import search_products
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer
from fimaq_deploy.calibration.quantizers.grid import activation_grid
from fimaq_deploy.target import find_target


def _operands(tokens: int) -> tuple[Tensor, Tensor]:
    """Rows with one large weight and many small ones, and values whose mean is not zero."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 2, tokens, tokens, generator=generator)
    scores[:, :, :, 0] += 6 * (torch.rand(2, 2, tokens, generator=generator) < 0.1)
    return scores.softmax(-1), torch.randn(2, 2, tokens, 8, generator=generator) + 1


def _quantizer() -> ActivationQuantizer:
    return ActivationQuantizer(
        activation_grid(8, "symmetric", find_target("tensorrt"), nonnegative=True), nonnegative=True
    )


def _error(quantizer: ActivationQuantizer, weights: Tensor, values: Tensor) -> float:
    rounded = (weights / quantizer.scale).round().clamp(0, quantizer.top) * quantizer.scale
    return float(((rounded @ values) - weights @ values).detach().square().mean())


def test_the_product_is_better_than_with_the_scale_of_least_error_of_the_weights() -> None:
    weights, values = _operands(256)
    plain, searched = _quantizer(), _quantizer()
    with torch.no_grad():
        search_activations([plain], [weights.flatten()], 64)
    search_products(searched, weights, values, 64)
    assert searched.scale < plain.scale
    assert _error(searched, weights, values) < 0.7 * _error(plain, weights, values)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime-cpu"])
def test_a_recipe_asks_for_it(
    tiny_vit: Callable[..., nn.Module],
    quick_recipe: Callable[..., fd.Recipe],
    random_images: Callable[..., Tensor],
    target: str,
) -> None:
    model, images = tiny_vit(img_size=64), random_images(8, 64)
    changes = {"reconstruction": {"iterations": 0}, "attention": {"quantize": "always"}}
    plain = fd.quantize(model, images, quick_recipe(**changes), target)
    asked = fd.quantize(model, images, quick_recipe(**changes, scale_search={"softmax": "products"}), target)
    differing = {name for name, one in plain.state_dict().items() if not torch.equal(one, asked.state_dict()[name])}
    assert any("softmax" in name for name in differing)
