"""What stays in high precision, and that everything after placement lives with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.convergence import NOTHING
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import Kept, LayerGrids, Plan, make_plan
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.calibration.state import read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import trace
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import TARGETS, combine, find_target

Make = Callable[..., Any]
POOLED = "behind a mean over tokens integers need more kernels than floats"
REFUSED = "the recipe leaves it alone"
IMAGES = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
LEARNING = Recipe.load("w4a4").replace(reconstruction={"iterations": 8, "images": 32}, rewrites={"norm": False})


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
    found = alone(tiny_vit(num_heads=4, num_classes=24), random_images(1), "tensorrt")
    assert found == {f"blocks.{n}.attn": "head size 8 is not one of [16, 32, 64]" for n in range(2)}
    assert Plan({name: Kept(reason) for name, reason in found.items()}).notes() == (
        "blocks.0.attn and 1 more left in high precision: head size 8 is not one of [16, 32, 64]",
    )
    cpu = alone(tiny_vit(num_classes=24), random_images(1), "onnxruntime-cpu")
    assert set(cpu) == {"blocks.0.attn", "blocks.1.attn"}
    assert alone(tiny_vit(num_classes=24), random_images(1), "tensorrt", attention={"quantize": "never"}) == {
        f"blocks.{n}.attn": REFUSED for n in range(2)
    }


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """The shipped Swin, untrained: 10 classes behind a mean, and patches of 4 pixels, few but quantized."""
    return BUNDLED["swin_digits"].create().eval()


@pytest.fixture(scope="module")
def quantized(original: nn.Module) -> QuantizedModel:
    return quantize(original, IMAGES, LEARNING, ["onnxruntime-cpu", "tensorrt-rtx"])


def test_what_is_left_alone_keeps_its_weights(quantized: QuantizedModel, original: nn.Module) -> None:
    layers = {name for name, _ in quantized_layers(quantized.model)}
    assert set(quantized.left_alone) == {"head.fc"} and "head.fc" not in layers and "patch_embed.proj" in layers
    assert torch.equal(quantized.model.head.fc.weight, original.head.fc.weight)


def test_a_stage_without_error_learns_nothing(original: nn.Module) -> None:
    """Nothing is quantized in or before this patch embedding; the head mends what the blocks did."""
    recipe = LEARNING.replace(patch_embed={"quantize": "never"}, reconstruction={"iterations": 2})
    quantized = quantize(original, IMAGES, recipe, "tensorrt")
    first, *_, last = quantized.history
    assert (first.name, first.loss_before, first.iterations, first.stopped) == ("patch_embed", 0, 0, NOTHING)
    assert (last.name, last.iterations) == ("head", 2)
    biases = [model.patch_embed.proj.bias for model in (quantized.model, original)]
    assert torch.equal(*biases) and not biases[0].requires_grad


def test_a_saved_model_knows_what_it_left_alone(quantized: QuantizedModel, original: nn.Module, tmp_path: Path) -> None:
    quantized.save(tmp_path / "q.safetensors")
    loaded = load_quantized(tmp_path / "q.safetensors", original)
    images = torch.rand(4, 1, 16, 16)
    assert loaded.left_alone == quantized.left_alone
    assert torch.equal(loaded(images), quantized(images))


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu", "tensorrt-rtx"])
def test_no_rule_of_a_target_is_broken(quantized: QuantizedModel, tmp_path: Path, target: str) -> None:
    path = trace(quantized).write(tmp_path / "model.onnx", target)
    assert lint(path, target) == ()


def test_a_plan_survives_json(quantized: QuantizedModel) -> None:
    assert Plan.from_dict(json.loads(json.dumps(quantized.plan.as_dict()))) == quantized.plan


@pytest.mark.parametrize("fields", [{"a": {"weights": {"bits": 4}}}, {"a": 3}, {"a": {"operands": None, "softmax": 1}}])
def test_a_damaged_plan_is_a_user_error(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="saved plan"):
        Plan.from_dict(fields)


def test_a_saved_model_loads_after_a_rule_of_its_target_has_changed(
    quantized: QuantizedModel, original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is the file's, not today's."""
    quantized.save(tmp_path / "q.safetensors")
    for name in ("onnxruntime-cpu", "tensorrt-rtx"):
        stricter = dataclasses.replace(
            TARGETS[name], least_product=64, integer_attention=False, attention=None, asymmetric_8bit=False
        )
        monkeypatch.setitem(TARGETS, name, stricter)
    today = make_plan(original, quantized.recipe, combine(map(find_target, TARGETS)), quantized.tokens)
    assert today.kept.keys() > quantized.plan.kept.keys(), "made today, the plan would be another"
    loaded = load_quantized(tmp_path / "q.safetensors", original)
    assert loaded.plan == quantized.plan
    assert torch.equal(loaded(IMAGES), quantized(IMAGES))


OLD = Path(__file__).parents[2] / "data" / "quantized-0.1.0.safetensors"


def old_model() -> nn.Module:
    """What the file was made from, with other weights: they are all in the file."""
    return VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=32, depth=1, num_heads=2
    ).eval()


def test_a_file_of_0_1_0_is_read() -> None:
    """Written by version 0.1.0 from a model of seed 0, w4a8 for tensorrt-rtx, nothing learned."""
    loaded = load_quantized(OLD, old_model())
    torch.manual_seed(0)
    old_model()
    images = torch.rand(8, 1, 16, 16) * 2 - 1
    expected = torch.tensor([0.005137324333190918, 0.03390789031982422, -0.12147903442382812, -0.092315673828125])
    torch.testing.assert_close(loaded(images)[0, :4], expected, atol=1e-5, rtol=0)
    assert isinstance(loaded.plan["head"], LayerGrids) and loaded.input_shape == (1, 16, 16)


def test_a_file_of_0_1_0_that_does_not_fit_todays_rules_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "tensorrt-rtx", dataclasses.replace(TARGETS["tensorrt-rtx"], least_product=16))
    with pytest.raises(UserError, match=r"was written by 0\.1\.0 and does not fit today's rules.*quantize again"):
        load_quantized(OLD, old_model())


def test_a_file_of_a_newer_version_is_refused(quantized: QuantizedModel, original: nn.Module, tmp_path: Path) -> None:
    quantized.save(tmp_path / "q.safetensors")
    state, metadata = read_state(tmp_path / "q.safetensors")
    write_state(tmp_path / "new.safetensors", state, {**metadata, "format": 99})
    with pytest.raises(UserError, match="newer version"):
        load_quantized(tmp_path / "new.safetensors", original)
