"""What a model is before it learns: rewritten, planned, copied, and still the model that was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.prepare import Prepared, prepare
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


def prepared(model: nn.Module, images: Tensor, recipe: Recipe) -> Prepared:
    with torch.no_grad():
        return prepare(model, images, recipe, find_target("onnxruntime-cpu"), torch.device("cpu"), 0)


@pytest.mark.parametrize("rewrites", [{}, {"norm": True, "heads": True, "rotation": True}])
@torch.no_grad()
def test_teacher_and_copy_answer_what_the_model_does(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, rewrites: dict[str, bool]
) -> None:
    model, images = tiny_vit().train(), random_images(8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = prepared(model, images, quick_recipe(rewrites=rewrites))
    assert model.training and all(torch.equal(model.state_dict()[name], one) for name, one in before.items())
    expected = model.eval()(images)
    for one in (made.teacher, made.copy):
        torch.testing.assert_close(one(images), expected, rtol=1e-3, atol=1e-4)
    moved = not torch.equal(made.teacher.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert moved == bool(rewrites)


def test_the_copy_is_quantized_where_the_plan_says_and_the_teacher_nowhere(
    tiny_vit: Make, random_images: Make, quick_recipe: Make
) -> None:
    made = prepared(tiny_vit(), random_images(8), quick_recipe())
    layers = {name for name, _ in quantized_layers(made.copy)}
    assert layers == set(made.plan) - set(made.plan.kept) and len(layers) == 1 + 2 * 4 + 1
    assert not list(quantized_layers(made.teacher))
    assert made.tokens == {"blocks.0.attn": 5, "blocks.1.attn": 5}
    assert made.merged == {} and made.at_once >= 1
    assert [(part.kind, part.columns) for part in made.outputs.parts] == [("classes", 5)]


def test_half_precision_models_are_prepared_in_float32(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> None:
    model = tiny_vit().half()
    made = prepared(model, random_images(8), quick_recipe())
    assert {parameter.dtype for parameter in made.teacher.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


class Doubled(nn.Linear):
    """An adapter in spirit: another weight would do the same."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Cut(nn.Linear):
    """A Linear by its class that no weight makes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-0.1, 0.1)


@torch.no_grad()
def test_a_layer_of_its_own_is_merged_where_a_weight_does_the_same(
    tiny_vit: Make, random_images: Make, quick_recipe: Make
) -> None:
    model, images = tiny_vit(), random_images(8)
    model.blocks[0].mlp.fc1.__class__ = Doubled
    made = prepared(model, images, quick_recipe())
    assert list(made.merged) == ["blocks.0.mlp.fc1"] and "Doubled" in made.merged["blocks.0.mlp.fc1"]
    torch.testing.assert_close(made.copy(images), model(images), rtol=1e-3, atol=1e-4)


def test_a_layer_that_computes_something_else_than_its_class_says_is_one_line(
    tiny_vit: Make, random_images: Make, quick_recipe: Make
) -> None:
    model = tiny_vit()
    model.blocks[0].mlp.fc1.__class__ = Cut
    with pytest.raises(UserError, match="Cut") as raised:
        prepared(model, random_images(8), quick_recipe())
    assert "\n" not in str(raised.value)
