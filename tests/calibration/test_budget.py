"""Batches follow from tokens: large images learn in parts, small ones as they always did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fixtures.second_device import second_device

from fimaq_deploy.calibration import budget
from fimaq_deploy.calibration.budget import Work, fitting, images_at_once, images_in_a_pass, work_of
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.data.batches import images_at_once as by_pixels
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

LARGE = Work(
    pixels=3 * 1024**2,
    tokens=4096,
    width=96,
    values=4096 * 96,
    scores=3 * 2**24,
    stages=4,
    blocks=2,
    parameters=10**6,
    at_once=8,
    tuned=1,
)
Make = Callable[..., Any]


def test_more_tokens_are_fewer_images(tiny_vit: Make) -> None:
    model = tiny_vit()
    counts = [images_at_once(model, dict.fromkeys(("blocks.0.attn", "blocks.1.attn"), n)) for n in (5, 1024, 4096)]
    assert counts == [2**31 // (32 * 2 * n**2) for n in (5, 1024, 4096)]
    assert images_at_once(model, dict.fromkeys(("blocks.0.attn", "blocks.1.attn"), 10**6)) == 1


@pytest.mark.parametrize(
    ("count", "numbers", "batch_size", "at_once", "expected"),
    [
        (64, 2**16, 32, 1000, 32),  # large images
        (64, 100, 32, 5, 5),
        (64, 2**10, 8, 1000, 64),  # small ones: as many minibatches as the caches hold
        (64, 2**10, 8, 30, 24),
        (63, 2**10, 8, 1000, 8),  # what is left over would go with others
        (70, 2**10, 7, 1000, 7),  # products of other rows would add up otherwise
    ],
)
def test_the_host_passes_minibatches(count: int, numbers: int, batch_size: int, at_once: int, expected: int) -> None:
    assert images_in_a_pass(torch.empty(count, numbers), torch.device("cpu"), batch_size, at_once) == expected


@pytest.mark.parametrize(
    ("spare_bytes", "numbers", "at_once", "expected"),
    [
        (2**40, 100, 1000, 256),
        (2**40, 100, 5, 5),
        (2**40, 2**22, 1000, 64),
        (2**40, 2**26, 1000, 32),  # what learns at once passes at once
        (2**26, 2**14, 1000, 64),
        (0, 100, 1000, 32),
    ],
)
def test_a_device_passes_what_fits_it(spare_bytes: int, numbers: int, at_once: int, expected: int) -> None:
    images = torch.empty(2, numbers, device="meta")
    with second_device(spare_bytes=spare_bytes) as device:
        assert images_in_a_pass(images, device, 32, at_once) == expected


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


def test_what_an_image_is_to_a_model_is_found_without_computing_it(tiny_vit: Make, tiny_swin: Make) -> None:
    work = work_of(tiny_vit(), torch.zeros(2, 3, 16, 16))
    assert (work.pixels, work.tokens, work.width, work.scores, work.blocks) == (768, 5, 32, 2 * 5**2, 2)
    swin = work_of(tiny_swin(), torch.zeros(1, 3, 32, 32))
    assert swin.values == swin.tokens * swin.width >= 64 * 8
    huge = tiny_vit(img_size=4096)
    assert work_of(huge, torch.zeros(1, 3, 4096, 4096)).scores == 2 * (512**2 + 1) ** 2, "256 GiB, if it were computed"


def test_learning_needs_more_for_more_of_anything() -> None:
    recipe = Recipe().replace(reconstruction={"images": 16, "batch_size": 8})
    base = LARGE.learning_bytes(recipe, 16, 2**32)
    assert (
        LARGE.learning_bytes(recipe, 16, 2**32, at_once=1) < LARGE.learning_bytes(recipe, 16, 2**32, at_once=4) < base
    )
    assert LARGE.learning_bytes(recipe, 16, 0) < base < LARGE.learning_bytes(recipe, 64, 2**40)
    assert replace(LARGE, width=192, values=2 * LARGE.values).learning_bytes(recipe, 16, 2**32) > base
    assert 4 * 8 * 4 * LARGE.scores < base


def free(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    monkeypatch.setattr(budget, "free_host_bytes", lambda: number)


def test_fewer_images_go_together_where_less_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, cpu = Recipe().replace(tuning={"iterations": 0}), torch.device("cpu")
    for number in (None, LARGE.learning_bytes(recipe, 16, 2**32)):
        free(monkeypatch, number)
        assert fitting(LARGE, recipe, 16, 2**32, cpu) == LARGE.at_once and not caplog.records
    free(monkeypatch, LARGE.learning_bytes(recipe, 16, 2**32, at_once=2))
    assert fitting(LARGE, recipe, 16, 2**32, cpu) == 2
    assert "2 images at a time, which moves the last digits" in caplog.text


def test_what_cannot_fit_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**29)
    with pytest.raises(
        UserError, match=r"^not enough memory: .*\(4096 tokens of width 96\) needs about \d\.\d GiB, and 0\.5 "
    ):
        fitting(LARGE, Recipe(), 16, 2**32, torch.device("cpu"))


def test_a_model_that_cannot_fit_is_refused_before_it_runs(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 2**20)
    with pytest.raises(UserError, match="not enough memory: to learn with one image at a time"):
        quantize(tiny_vit(), random_images(8), quick_recipe(), "tensorrt")
