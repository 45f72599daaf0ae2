"""Chains and quantized copies compute what the model does, on every structure, with the grids that the plan says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.attention import Attention
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.network.attentions import attention_tokens, is_explicit
from fimaq_deploy.calibration.network.plan import Plan, make_plan
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy, quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers.layers import (
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    activation_quantizers,
    quantized_layers,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import require_supported
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target, find_target

Make = Callable[..., Any]


def copied(model: nn.Module, recipe: Recipe, target: Target, tokens: dict[str, int] | None = None) -> Any:
    """The quantized copy that a recipe plans for a target."""
    tokens = tokens or attention_tokens(model, images_for(model, 1))
    return quantized_copy(model, make_plan(model, recipe, target, tokens))


CPU, TENSORRT = find_target("onnxruntime-cpu"), find_target("tensorrt")
# These models' edges are too small to be quantized unless it is asked for.
WHOLE = Recipe().replace(patch_embed={"quantize": "always"}, head={"quantize": "always"})

VITS: dict[str, dict[str, Any]] = {
    "class token": {},
    "average pooling": {"global_pool": "avg"},
    "no class token": {"global_pool": "avg", "class_token": False},
    "register tokens": {"reg_tokens": 3, "no_embed_class": True},
    "normalised q and k": {"qk_norm": True},
    "layer scale": {"init_values": 0.3},
    "norm first": {"pre_norm": True},
    "attention and mlp norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "no qkv bias": {"qkv_bias": False},
    "no projection bias": {"proj_bias": False},
    "max pooling": {"global_pool": "max"},
    "oblong": {"img_size": (16, 32)},
    "dynamic size": {"dynamic_img_size": True},
    "no head": {"num_classes": 0},
}
SWINS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded windows": {"img_size": 40, "patch_size": 4, "window_size": 4},
    "odd sizes": {"img_size": 36, "window_size": 4, "depths": (2, 2)},
    "one window is the map": {"img_size": 32, "window_size": 8},
    "window bigger than the map": {"img_size": 16, "window_size": 7},
    "always partitioned": {"img_size": 32, "window_size": 3, "always_partition": True},
    "own head size": {"head_dim": 8, "num_heads": (2, 4)},
    "three layers": {"depths": (1, 2, 1), "num_heads": (1, 2, 4)},
    "any input size": {"strict_img_size": False},
}


def images_for(model: Any, count: int = 2) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 3, *model.patch_embed.img_size)


@pytest.fixture(params=["deit", *(f"vit: {name}" for name in VITS), *(f"swin: {name}" for name in SWINS)])
def model(request: pytest.FixtureRequest, tiny_vit: Make, tiny_deit: Make, tiny_swin: Make) -> Any:
    family, _, name = request.param.partition(": ")
    if family == "deit":
        return tiny_deit()
    return tiny_vit(**VITS[name]) if family == "vit" else tiny_swin(**SWINS[name])


@torch.no_grad()
def test_stages_compose_to_the_model_exactly(model: nn.Module) -> None:
    images = images_for(model)
    assert torch.equal(suffix_of(stages_of(model))(images), model(images))


@torch.no_grad()
def test_the_head_stage_knows_the_penultimate_feature(model: Any) -> None:
    images = images_for(model)
    stages = stages_of(model)
    tokens = suffix_of(stages[:-1])(images)
    features = stages[-1].module.features(tokens)
    assert torch.equal(features, model.forward_head(model.forward_features(images), pre_logits=True))
    assert features.shape == (2, model.num_features)


@torch.no_grad()
def test_the_copy_computes_what_the_model_computes(model: nn.Module) -> None:
    images = images_for(model)
    require_supported(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = {name: type(module) for name, module in model.named_modules()}
    made = copied(model, Recipe(), CPU, attention_tokens(model, images[:1]))
    torch.testing.assert_close(made(images), model(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(suffix_of(stages_of(made))(images), model(images), rtol=1e-4, atol=1e-5)
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_layer_and_no_attention_is_left_out(model: nn.Module) -> None:
    made = copied(model, WHOLE, CPU, attention_tokens(model, images_for(model, 1)))
    assert not [m for m in made.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    expected = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in model.modules())
    assert sum(isinstance(m, QuantizedLayer) for m in made.modules()) == expected
    attentions = [m for m in made.modules() if isinstance(m, ExplicitAttention)]
    assert len(attentions) == len(attention_tokens(model, images_for(model, 1)))


def test_stages_together_own_every_layer_once(model: nn.Module) -> None:
    made = copied(model, Recipe(), CPU, attention_tokens(model, images_for(model, 1)))
    owned = [id(layer) for stage in stages_of(made) for _, layer in quantized_layers(stage.module)]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(layer) for _, layer in quantized_layers(made)}


def test_stages_are_named_like_the_modules(tiny_vit: Make, tiny_swin: Make) -> None:
    assert [stage.name for stage in stages_of(tiny_vit())] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    assert [stage.name for stage in stages_of(tiny_swin())] == [
        "patch_embed",
        "layers.0.blocks.0",
        "layers.0.blocks.1",
        "layers.1.downsample",
        "layers.1.blocks.0",
        "layers.1.blocks.1",
        "head",
    ]


# What is not understood


@pytest.mark.parametrize("stranger", [nn.Linear(3, 3), nn.Sequential(nn.Flatten(), nn.Linear(768, 5))])
def test_other_models_have_no_stages(stranger: nn.Module) -> None:
    with pytest.raises(UserError, match="expected a timm"):
        stages_of(stranger)


def test_a_convolutional_network_is_refused() -> None:
    from timm.models.resnet import BasicBlock

    with pytest.raises(UserError):
        require_supported(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3))


def test_gated_attention_is_understood(tiny_vit: Make) -> None:
    model = tiny_vit()
    torch.manual_seed(0)
    model.blocks[0].attn = Attention(32, 2, gated=True).eval()
    require_supported(model)
    images = images_for(model)
    made = copied(model, Recipe(), CPU, attention_tokens(model, images[:1]))
    torch.testing.assert_close(made(images), model(images), rtol=1e-4, atol=1e-5)
    assert isinstance(made.blocks[0].attn.gate, QuantizedLinear)


# Which grid goes where


def layers_of(model: nn.Module, recipe: Recipe, target: str = "onnxruntime-cpu") -> dict[str, QuantizedLayer]:
    tokens = attention_tokens(model, images_for(model, 1))
    return dict(quantized_layers(copied(model, recipe, find_target(target), tokens)))


def test_edges_have_their_own_bits(tiny_deit: Make) -> None:
    recipe = WHOLE.replace(
        weights={"bits": 3},
        activations={"bits": 3},
        patch_embed={"weight_bits": 8, "activation_bits": 16},
        head={"weight_bits": 6, "activation_bits": 4},
    )
    layers = layers_of(tiny_deit(), recipe)
    assert isinstance(layers["patch_embed.proj"], QuantizedConv2d)
    assert layers["patch_embed.proj"].weight_quantizer.grid.bits == 8
    assert layers["patch_embed.proj"].input_quantizer.grid is None
    for name in ("head", "head_dist"):
        assert layers[name].weight_quantizer.grid.bits == 6
        assert layers[name].input_quantizer.grid.bits == 4
    assert layers["blocks.0.mlp.fc1"].weight_quantizer.grid.bits == 3
    own = layers_of(tiny_deit(), recipe.replace(head={"weight_bits": None, "activation_bits": None}))
    assert own["head"].weight_quantizer.grid.bits == own["head"].input_quantizer.grid.bits == 3


def test_the_swin_head_is_a_head(tiny_swin: Make) -> None:
    layers = layers_of(tiny_swin(), WHOLE.replace(weights={"bits": 3}, head={"weight_bits": 8}))
    assert layers["head.fc"].weight_quantizer.grid.bits == 8
    assert layers["layers.1.downsample.reduction"].weight_quantizer.grid.bits == 3


def test_int4_blocks_are_for_linears_whose_inputs_they_divide(tiny_vit: Make) -> None:
    recipe = Recipe().replace(weights={"bits": 4, "block_size": 64}, activations={"bits": 16})
    layers = layers_of(tiny_vit(embed_dim=64), recipe, "tensorrt")
    assert layers["blocks.0.attn.qkv"].block_size == 64
    assert layers["blocks.0.mlp.fc2"].weight_quantizer.scale.shape == (64, 2)
    assert layers["patch_embed.proj"].block_size is None
    assert layers["head"].block_size is None, "the head keeps its own 8 bits"


def operands(model: nn.Module, recipe: Recipe, target: str) -> set[str]:
    tokens = attention_tokens(model, images_for(model, 1))
    made = copied(model, recipe, find_target(target), tokens)
    return {name.rpartition(".")[2] for name, _ in activation_quantizers(made) if ".quantizers." in name}


ALL_FOUR = {"q", "k", "v", "softmax"}


def test_attention_is_quantized_where_the_target_fuses_it(tiny_vit: Make) -> None:
    fusing, odd = tiny_vit(), tiny_vit(embed_dim=48)
    assert operands(fusing, Recipe(), "tensorrt") == ALL_FOUR
    assert operands(odd, Recipe(), "tensorrt") == set(), "head size 24 is outside the envelope"
    assert operands(odd, Recipe(), "openvino-cpu") == ALL_FOUR, "no envelope there"
    assert operands(fusing, Recipe(), "onnxruntime-cpu") == set(), "its float matmuls are faster"
    assert operands(fusing, Recipe().replace(attention={"quantize": "never"}), "tensorrt") == set()
    assert operands(fusing, Recipe().replace(activations={"bits": 16}), "tensorrt") == set()


def test_hidden_tokens_of_shifted_windows_weigh_nothing(tiny_swin: Make) -> None:
    model = tiny_swin()
    images = images_for(model, 2)
    made = copied(model, Recipe(), find_target("onnxruntime-cpu"), attention_tokens(model, images[:1]))
    weights: list[Tensor] = []
    made.layers[0].blocks[1].attn.quantizers.softmax.register_forward_pre_hook(lambda _, x: weights.append(x[0]))
    torch.testing.assert_close(made(images), model(images))
    (shifted,) = weights
    assert (shifted == 0).any() and shifted[shifted > 0].min() > torch.finfo(torch.float32).tiny, "denormal numbers"


def test_the_softmax_has_its_own_bits(tiny_vit: Make) -> None:
    model = tiny_vit()
    recipe = Recipe().replace(activations={"bits": 3}, attention={"softmax_bits": 8})
    made = copied(model, recipe, TENSORRT, attention_tokens(model, images_for(model, 1)))
    quantizers = made.blocks[0].attn.quantizers
    assert quantizers.q.grid.bits == 3 and quantizers.softmax.grid.bits == 8
    assert quantizers.softmax.integer_range().high == 127


@pytest.mark.parametrize(
    ("target", "asked", "bits"), [("tensorrt", None, 8), ("tensorrt", 4, 4), ("openvino-cpu", None, 4)]
)
def test_the_softmax_keeps_the_bits_that_fuse_unless_told(
    tiny_vit: Make, target: str, asked: int | None, bits: int
) -> None:
    """TensorRT's fused attention cannot clip its weights to fewer integers than the container has."""
    model = tiny_vit()
    recipe = Recipe().replace(activations={"bits": 4}, attention={"softmax_bits": asked})
    made = copied(model, recipe, find_target(target), attention_tokens(model, images_for(model, 1)))
    quantizers = made.blocks[0].attn.quantizers
    assert (quantizers.q.grid.bits, quantizers.softmax.grid.bits) == (4, bits)


def test_too_many_tokens_leave_attention_alone(tiny_vit: Make) -> None:
    model = tiny_vit()
    tokens = dict.fromkeys(attention_tokens(model, images_for(model, 1)), 577)
    made = copied(model, Recipe(), TENSORRT, tokens)
    assert not [name for name, _ in activation_quantizers(made) if ".quantizers." in name]


def test_a_grid_that_the_target_lacks_is_an_error(tiny_vit: Make) -> None:
    model = tiny_vit()
    tokens = attention_tokens(model, images_for(model, 1))
    with pytest.raises(UserError, match="asymmetric 8-bit"):
        copied(model, Recipe().replace(activations={"scheme": "asymmetric"}), TENSORRT, tokens)
    with pytest.raises(UserError, match="blocks of 32"):
        copied(model, Recipe().replace(weights={"bits": 4, "block_size": 32}), TENSORRT, tokens)


def test_a_plan_of_another_model_is_one_line(tiny_vit: Make) -> None:
    model, deeper = tiny_vit(), tiny_vit(depth=3)
    plan = make_plan(deeper, WHOLE, CPU, attention_tokens(deeper, images_for(deeper, 1)))
    with pytest.raises(UserError, match=r"belong to another model: this one has no module 'blocks\.2\."):
        quantized_copy(model, plan)
    with pytest.raises(UserError, match="belong to another model: a LayerNorm stands where a layer was"):
        quantized_copy(model, Plan({"blocks.0.norm1": plan["head"]}))


@torch.no_grad()
def test_an_explicit_copy_is_spelled_out_and_frees_the_original(tiny_swin: Make) -> None:
    model = tiny_swin().train()
    made = explicit_copy(model)
    assert is_explicit(made) and not is_explicit(model)
    assert model.training and not any(module.training for module in made.modules())
    torch.testing.assert_close(made(images_for(model)), model.eval()(images_for(model)), rtol=1e-4, atol=1e-5)
    for parameter in made.parameters():
        parameter.zero_()
    assert all(parameter.any() for parameter in model.parameters() if parameter.ndim > 1), "nothing is shared"


def test_quantized_copies_can_be_copied(tiny_swin: Make) -> None:
    model = tiny_swin()
    made = copied(model, Recipe(), CPU, attention_tokens(model, images_for(model, 1)))
    assert isinstance(copy.deepcopy(made), SwinTransformer)
    assert not isinstance(made, VisionTransformer)
