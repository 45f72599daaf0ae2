"""What a recipe and a target put in integers or floats of 8 bits, and what stays in high precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import Plan, make_plan
from fimaq_deploy.calibration.network.rules import AttentionGrids, Kept, LayerGrids
from fimaq_deploy.calibration.quantizers.grid import FP8_SOFTMAX, FloatActivationGrid, FloatWeightGrid, WeightGrid
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import combine, find_target

Make = Callable[..., Any]


POOLED = "behind a mean over tokens integers need more kernels than floats"


REFUSED = "the recipe leaves it alone"


def alone(model: nn.Module, image: Tensor, *targets: str, **recipe: Any) -> dict[str, str]:
    rules = combine(map(find_target, targets))
    return make_plan(model, Recipe().replace(**recipe), rules, attention_tokens(model, image)).kept


def test_tiny_layers_are_left_alone_where_a_target_gains_nothing(tiny_vit: Make, random_images: Make) -> None:
    model, image = tiny_vit(), random_images(1)
    few = "32 inputs and 5 outputs, below 16 integers gain nothing"
    assert alone(model, image, "openvino-cpu") == {"head": few}
    assert alone(model, image, "tensorrt") == {}, "no kernel more than in floats"
    assert alone(model, image, "tensorrt", "openvino-cpu") == {"head": few}, "one target that gains nothing is enough"


@pytest.mark.parametrize(
    ("pool", "target", "expected"),
    [
        ("avg", "tensorrt-rtx", {"head": POOLED}),
        ("avg", "openvino-cpu", {}),
        ("token", "tensorrt-rtx", {}),
    ],
)
def test_a_head_behind_a_mean_is_left_alone_on_tensorrt(
    tiny_vit: Make, random_images: Make, pool: str, target: str, expected: dict[str, str]
) -> None:
    assert alone(tiny_vit(global_pool=pool, num_classes=24), random_images(1), target) == expected


def test_swin_heads_are_behind_a_mean(tiny_swin: Make, random_images: Make) -> None:
    assert alone(tiny_swin(num_classes=24), random_images(1, size=32), "tensorrt") == {"head.fc": POOLED}


def test_a_recipe_decides_about_its_edges(tiny_swin: Make, random_images: Make) -> None:
    model, image = tiny_swin(), random_images(1, size=32)
    always, never = {"quantize": "always"}, {"quantize": "never"}
    assert alone(model, image, "tensorrt", head=always) == {}
    found = alone(model, image, "tensorrt", head=never, patch_embed=never)
    assert found == {"patch_embed.proj": REFUSED, "head.fc": REFUSED}


def test_attention_outside_the_envelope_says_which_rule_it_breaks(tiny_vit: Make, random_images: Make) -> None:
    found = alone(tiny_vit(num_heads=4, num_classes=24), random_images(1), "tensorrt", attention={"format": "int"})
    assert found == {f"blocks.{n}.attn": "head size 8 is not one of [16, 32, 64]" for n in range(2)}
    assert Plan({name: Kept(reason) for name, reason in found.items()}).notes() == (
        "blocks.0.attn and 1 more left in high precision: head size 8 is not one of [16, 32, 64]",
    )
    cpu = alone(tiny_vit(num_classes=24), random_images(1), "onnxruntime-cpu")
    assert set(cpu) == {"blocks.0.attn", "blocks.1.attn"}
    assert alone(tiny_vit(num_classes=24), random_images(1), "tensorrt", attention={"quantize": "never"}) == {
        f"blocks.{n}.attn": REFUSED for n in range(2)
    }


def planned(model: nn.Module, image: Tensor, target: Any, **recipe: Any) -> Plan:
    rules = find_target(target) if isinstance(target, str) else target
    return make_plan(model, Recipe().replace(**recipe), rules, attention_tokens(model, image))


FP8 = LayerGrids(FloatWeightGrid("fp8"), FloatActivationGrid("fp8"))
FP8_ATTENTION = AttentionGrids(FloatActivationGrid("fp8"), FP8_SOFTMAX)


def test_a_recipe_of_8_bit_floats_makes_products_and_attention_of_them(tiny_vit: Make, random_images: Make) -> None:
    plan = planned(
        tiny_vit(img_size=48), random_images(1, size=48), "tensorrt-rtx", format="fp8", patch_embed={"format": "int"}
    )
    assert plan["blocks.0.mlp.fc1"] == plan["head"] == FP8 and plan["blocks.1.attn"] == FP8_ATTENTION
    patches = plan["patch_embed.proj"]
    assert isinstance(patches, LayerGrids) and patches.weights == WeightGrid(8)
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_single_layers_have_formats_of_their_own(tiny_vit: Make, random_images: Make) -> None:
    own = {"blocks.1.mlp.*": {"format": "fp8"}, "blocks.0.attn": {"format": "fp8"}}
    plan = planned(tiny_vit(img_size=48), random_images(1, size=48), "tensorrt-rtx", layers=own)
    assert plan["blocks.1.mlp.fc2"] == FP8 and plan["blocks.0.mlp.fc2"] != FP8
    assert plan["blocks.0.attn"] == FP8_ATTENTION and plan["blocks.1.attn"] != FP8_ATTENTION


def test_attention_outside_the_envelope_of_integers_is_in_floats_where_every_gpu_has_them(
    tiny_vit: Make, random_images: Make
) -> None:
    model, image, rtx = tiny_vit(embed_dim=48, img_size=48), random_images(1, size=48), find_target("tensorrt-rtx")
    ada, ampere = (replace(rtx, compute_capability=one) for one in ((8, 9), (8, 6)))
    assert planned(model, image, ada)["blocks.0.attn"] == FP8_ATTENTION
    assert isinstance(planned(tiny_vit(img_size=48), image, ada)["blocks.0.attn"], AttentionGrids), "integers fuse"
    assert planned(tiny_vit(img_size=48), image, ada)["blocks.0.attn"] != FP8_ATTENTION
    for target in (ampere, rtx):
        left = planned(model, image, target)["blocks.0.attn"]
        assert isinstance(left, Kept) and left.reason.startswith("head size 24 is not one of [16, 32, 64]")
        assert "compute capability 8.9 or newer" in left.reason
    left = planned(model, image, ada, attention={"format": "int"})["blocks.0.attn"]
    assert left == Kept("head size 24 is not one of [16, 32, 64]")


@pytest.mark.parametrize(
    ("target", "recipe", "said"),
    [
        ("onnxruntime-cpu", {"format": "fp8"}, "cannot run on target onnxruntime-cpu"),
        ("openvino-cpu", {"attention": {"format": "fp8"}}, "FP8 attention cannot run on target openvino-cpu"),
        ("tensorrt-rtx", {"format": "fp8", "weights": {"bits": 4}}, "which has 8 bits, and its weights are to have 4"),
        ("tensorrt-rtx", {"format": "fp8", "activations": {"bits": 16}}, "its activations are to have 16"),
        ("tensorrt-rtx", {"format": "fp8", "weights": {"block_size": 16}}, "blocks, for which there is no kernel"),
    ],
)
def test_floats_that_nothing_executes_are_refused(
    tiny_vit: Make, random_images: Make, target: str, recipe: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        planned(tiny_vit(img_size=48), random_images(1, size=48), target, patch_embed={"format": "int"}, **recipe)


def test_short_attention_does_not_fuse_in_floats(tiny_vit: Make, random_images: Make) -> None:
    short = "5 tokens are fewer than the 32 of FP8 attention"
    plan = planned(tiny_vit(), random_images(1), "tensorrt-rtx", format="fp8", patch_embed={"format": "int"})
    assert plan["blocks.0.attn"] == Kept(short) and plan["blocks.0.attn.proj"] == FP8
    asked = {"format": "fp8", "quantize": "always"}
    assert planned(tiny_vit(), random_images(1), "tensorrt-rtx", attention=asked)["blocks.0.attn"] == FP8_ATTENTION
