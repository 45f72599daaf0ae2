"""`rewrites: auto`: a model that needs a switch gets it, and the recipe that comes of it makes the same model again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.trials import candidates
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

Make = Callable[..., Any]
FEW = {"scale_search": {"candidates": 4}, "reconstruction": {"iterations": 1}}


@torch.no_grad()
def uneven(model: Any) -> nn.Module:
    """Channels of v that differ by a factor of 64, which the projection takes back: one scale cannot serve them."""
    for block in model.blocks:
        width = block.attn.proj.in_features
        factors = torch.logspace(-3, 3, width, 2)
        block.attn.qkv.weight[2 * width :] *= factors[:, None]
        block.attn.qkv.bias[2 * width :] *= factors
        block.attn.proj.weight /= factors
    return model


@pytest.fixture
def asked(quick_recipe: Make) -> Recipe:
    return quick_recipe(rewrites="auto", attention={"quantize": "always"}, **FEW)


def test_a_switch_that_a_model_needs_is_taken_and_the_recipe_says_it(
    tiny_vit: Make, random_images: Callable[..., Tensor], asked: Recipe, tmp_path: Path
) -> None:
    model, images, seen = uneven(tiny_vit(depth=1)), random_images(16), []
    made = fd.quantize(model, images, asked, resume=tmp_path, progress=lambda *told: seen.append(told))
    assert made.choice is not None and "rewrites.heads=true" in made.choice.taken
    assert made.recipe.exact_rewrites.heads is True
    trial = next(one for one in made.choice.trials if one.setting == "rewrites.heads=true")
    assert trial.gain > trial.noise > 0
    assert seen[0][2] == "trying the usual rewrites" and "trying rewrites.heads=true" in [told[2] for told in seen]
    again = fd.quantize(model, images, made.recipe)
    assert again.choice is None
    states = made.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())

    continued: list[Any] = []
    resumed = fd.quantize(model, images, asked, resume=tmp_path, progress=lambda *told: continued.append(told))
    assert resumed.choice == made.choice
    assert not [told for told in continued if "trying" in told[2]], "what was measured is not measured again"


def test_too_few_images_are_one_line(tiny_vit: Make, random_images: Callable[..., Tensor], asked: Recipe) -> None:
    with pytest.raises(UserError, match=r"^rewrites: auto compares halves of at least 8 calibration images, got 7"):
        fd.quantize(tiny_vit(), random_images(7), asked)


def test_every_switch_is_tried_the_other_way_round(quick_recipe: Make) -> None:
    start = quick_recipe(rewrites={"norm": True, "values": False}, scale_search={"softmax": "products"})
    assert candidates(start, can_rotate=False) == [
        "rewrites.norm=false",
        "rewrites.heads=true",
        "rewrites.values=true",
        "scale_search.softmax=values",
    ]
    assert "rewrites.rotation=true" in candidates(start, can_rotate=True)
