"""Batches follow from tokens: large images learn in parts, small ones as they always did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fimaq_deploy.calibration import budget
from fimaq_deploy.calibration.budget import images_at_once
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.data.batches import images_at_once as by_pixels

Make = Callable[..., Any]


def test_more_tokens_are_fewer_images(tiny_vit: Make) -> None:
    model = tiny_vit()
    counts = [images_at_once(model, dict.fromkeys(("blocks.0.attn", "blocks.1.attn"), n)) for n in (5, 1024, 4096)]
    assert counts == [2**31 // (32 * 2 * n**2) for n in (5, 1024, 4096)]
    assert images_at_once(model, dict.fromkeys(("blocks.0.attn", "blocks.1.attn"), 10**6)) == 1


def test_pixels_bound_a_batch() -> None:
    assert [by_pixels((3, side, side), 32) for side in (16, 224, 384, 1024, 4096)] == [32, 32, 10, 1, 1]


@pytest.mark.parametrize("loss", ["mse", "dplr", "least_squares"])
def test_a_minibatch_in_parts_learns_what_it_learns_as_a_whole(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Without drops, whose random numbers differ; float sums differ all the same."""
    model, images = tiny_vit(num_classes=24), random_images(32)
    settings = {"images": 32, "batch_size": 16, "loss": loss, "qdrop": 0.0, "iterations": 20}
    recipe = quick_recipe(reconstruction=settings, tuning={"iterations": 0})
    whole = quantize(model, images, recipe, "tensorrt")
    tokens = max(attention_tokens(model, images[:1]).values())
    monkeypatch.setattr(budget, "HOST_BYTES", 3 * 32 * 2 * tokens**2)
    parts = quantize(model, images, recipe, "tensorrt")
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other.loss_after == pytest.approx(one.loss_after, rel=0.15), one.name
    expected = model(images)
    errors = [float((each(images) - expected).square().mean()) for each in (whole, parts)]
    assert errors[1] == pytest.approx(errors[0], rel=0.25)


def test_no_part_is_larger_than_the_bound(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = tiny_vit(num_classes=24), random_images(32)
    seen: set[int] = set()
    tokens = max(attention_tokens(model, images[:1]).values())
    monkeypatch.setattr(budget, "HOST_BYTES", 3 * 32 * 2 * tokens**2)
    softmax = torch.Tensor.softmax

    def watched(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if x.ndim == 4:
            seen.add(len(x))
        return softmax(x, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    settings = {"images": 32, "batch_size": 16, "iterations": 4}
    quantize(model, images, quick_recipe(reconstruction=settings, tuning={"iterations": 0}), "tensorrt", sensitivity=8)
    assert seen and max(seen) == 3
