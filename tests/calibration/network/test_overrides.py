"""A recipe's `layers`: what a pattern changes, what wins, and what is refused with the nearest names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.overrides import Overrides
from fimaq_deploy.calibration.network.plan import Plan, make_plan
from fimaq_deploy.calibration.network.rules import AttentionGrids, Kept, LayerGrids
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import LayerOverride, Recipe
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


@pytest.fixture
def vit(tiny_vit: Make) -> nn.Module:
    return tiny_vit(num_classes=24)


@pytest.fixture
def plan_of(vit: nn.Module, random_images: Make) -> Callable[..., Plan]:
    def make(layers: dict[str, Any], target: str = "tensorrt", **recipe: Any) -> Plan:
        asked = Recipe().replace(layers=layers, **recipe)
        return make_plan(vit, asked, find_target(target), attention_tokens(vit, random_images(1)))

    return make


def test_a_pattern_changes_the_fields_that_it_names_and_no_others(plan_of: Callable[..., Plan]) -> None:
    common = {"weights": {"bits": 4}, "activations": {"bits": 4}}
    before = plan_of({}, **common)
    after = plan_of({"blocks.*.mlp.fc2": {"activations": {"bits": 8}}}, **common)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"blocks.0.mlp.fc2", "blocks.1.mlp.fc2"}
    one = after["blocks.1.mlp.fc2"]
    assert isinstance(one, LayerGrids) and one.inputs is not None
    assert (one.weights.bits, one.inputs.bits) == (4, 8)


def test_later_patterns_win_field_by_field(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(
        {
            "blocks.*": {"weights": {"bits": 4}, "activations": {"bits": 6}},
            "blocks.1.*": {"activations": {"bits": 3}},
        }
    )
    first, second = plan["blocks.0.mlp.fc1"], plan["blocks.1.mlp.fc1"]
    assert isinstance(first, LayerGrids) and isinstance(second, LayerGrids) and first.inputs and second.inputs
    assert (first.weights.bits, first.inputs.bits, second.weights.bits, second.inputs.bits) == (4, 6, 4, 3)


def test_never_and_always_decide_before_the_target(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of({"blocks.0.attn": {"quantize": "never"}, "blocks.0.mlp.fc1": {"quantize": "never"}})
    assert plan.kept == dict.fromkeys(("blocks.0.attn", "blocks.0.mlp.fc1"), "the recipe leaves it alone")
    cpu = plan_of({"blocks.1.attn": {"quantize": "always", "softmax_bits": 4}}, target="onnxruntime-cpu")
    assert isinstance(cpu["blocks.0.attn"], Kept)
    one = cpu["blocks.1.attn"]
    assert isinstance(one, AttentionGrids) and (one.operands.bits, one.softmax.bits) == (8, 4)


def test_blocks_of_weights_can_be_asked_for_and_refused(plan_of: Callable[..., Plan]) -> None:
    blocked = {"weights": {"bits": 4, "block_size": 16}, "activations": {"bits": 16}}
    plan = plan_of({"blocks.0.mlp.fc1": {"weights": {"block_size": 0}}}, target="onnxruntime-cpu", **blocked)
    sizes = {n: d.weights.block_size for n, d in plan.items() if isinstance(d, LayerGrids) and n.endswith("fc1")}
    assert sizes == {"blocks.0.mlp.fc1": None, "blocks.1.mlp.fc1": 16}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"block.0.mlp.fc1": {"quantize": "never"}}, "matches no layer or attention .*blocks.0.mlp.fc1"),
        ({"blocks.7.*": {"quantize": "never"}}, "'blocks.7.*' matches no layer or attention"),
        ({"blocks.0.attn": {"weights": {"bits": 4}}}, "matches no layer with weights"),
        ({"blocks.0.mlp.fc1": {"softmax_bits": 8}}, "matches no attention of this model"),
        ({"": {"quantize": "never"}}, "matches no layer"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest_names(
    plan_of: Callable[..., Plan], entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(entry)


@pytest.mark.parametrize("entry", [{"weights": {"bits": 5}}, {"bits": 4}, {"quantize": "sometimes"}, 3])
def test_fields_are_as_strict_as_everywhere(entry: Any) -> None:
    with pytest.raises(UserError, match="layers"):
        Recipe().replace(layers={"blocks.*": entry})


def test_nothing_matched_changes_nothing() -> None:
    assert Overrides({}, ("a.b",), ()).of("a.b") == LayerOverride()


def test_the_command_line_sets_them(random_images: Make, vit: nn.Module) -> None:
    recipe = Recipe.load("w4a4").with_settings(
        [
            'layers={"blocks.0.*": {activations: {bits: 8}}, head: {quantize: never}}',
            "reconstruction.iterations=0",
            "tuning.iterations=0",
        ]
    )
    quantized = quantize(vit, random_images(4), recipe, "tensorrt")
    assert quantized.left_alone == {"head": "the recipe leaves it alone"}
    assert quantized.recipe.layers["blocks.0.*"].activations.bits == 8
