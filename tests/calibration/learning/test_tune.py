from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.tune import _varied, images_tuned_at_once
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.recipe import Tuning

Make = Callable[..., Any]


@torch.no_grad()
def divergence(quantized: nn.Module, model: nn.Module, images: Tensor) -> float:
    return float(fisher.kl_divergence(quantized(images), model(images), 1.0))


@pytest.mark.parametrize("family", ["tiny_vit", "tiny_swin"])
def test_tuning_brings_the_whole_nearer_and_keeps_the_grids(
    family: str, random_images: Make, quick_recipe: Make, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)()
    images = random_images(16, 32 if family == "tiny_swin" else 16)
    recipe = quick_recipe(weights={"bits": 3}, reconstruction={"iterations": 0})
    plain = quantize(model, images, recipe)
    tuned = quantize(
        model,
        images,
        recipe.replace(tuning={"iterations": 80, "batch_size": 16, "mixing": 0.0, "mirror": False, "weight_lr": 0.03}),
    )
    assert divergence(tuned, model, images) < divergence(plain, model, images)
    before, after = dict(quantized_layers(plain.model)), dict(quantized_layers(tuned.model))
    assert any(not torch.equal(before[name].q_weight, layer.q_weight) for name, layer in after.items())
    for name, layer in after.items():
        low = -4 if "blocks" in name else -128
        assert layer.q_weight.min() >= low and layer.q_weight.max() <= -low - 1
    assert not any(parameter.requires_grad for parameter in tuned.parameters())


def test_images_are_shown_as_they_are_where_nothing_varies_them() -> None:
    images = torch.randn(4, 3, 8, 8)
    assert _varied(images, Tuning(mirror=False, mixing=0)) is images


def test_mirroring_flips_some_and_leaves_the_others() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 3, 8, 8)
    found = _varied(images, Tuning(mirror=True, mixing=0))
    flipped = [torch.equal(one, image.flip(-1)) for one, image in zip(found, images, strict=True)]
    kept = [torch.equal(one, image) for one, image in zip(found, images, strict=True)]
    assert all(one != other for one, other in zip(flipped, kept, strict=True)) and 0 < sum(flipped) < 32


def test_another_image_has_at_most_its_share() -> None:
    torch.manual_seed(0)
    images = torch.eye(32).view(32, 1, 1, 32)
    found = _varied(images, Tuning(mirror=False, mixing=0.3)).view(32, 32)
    assert found.diagonal().min() >= 0.7 - 1e-6
    torch.testing.assert_close(found.sum(1), torch.ones(32))
    assert (found.diagonal() < 0.99).any()


@pytest.mark.parametrize(("size", "count"), [(224, 8), (448, 2), (2048, 1), (16, 1568)])
def test_a_backward_pass_takes_as_many_images_as_their_size_allows(size: int, count: int) -> None:
    assert images_tuned_at_once(size * size) == count
