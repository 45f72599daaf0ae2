"""The copy that is quantized computes what the user's model computes, or the build stops and names the module."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fimaq_deploy.calibration.network.fidelity import merge_adapters, unusual
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import load_quantized
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe

Make = Callable[..., Any]
EIGHT = Recipe.load("w8a8").replace(
    reconstruction={"iterations": 0, "images": 8}, tuning={"iterations": 0}, head={"quantize": "always"}
)


def cosine(found: Tensor, expected: Tensor) -> float:
    """Of the image that is worst."""
    return nn.functional.cosine_similarity(found, expected).min().item()


class LoraLinear(nn.Linear):
    """What people write by hand."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.a = nn.Parameter(torch.randn(rank, base.in_features) * 0.3)
        self.b = nn.Parameter(torch.randn(base.out_features, rank) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.a.T @ self.b.T


class Adapter(nn.Module):
    """As peft has it: the layer inside, the update beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 3, bias=False)
        self.lora_B = nn.Linear(3, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 2 * self.lora_B(self.lora_A(x))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Gated(nn.Linear):
    """No linear map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def lora(model: Any) -> None:
    for block in model.blocks:
        block.attn.qkv, block.mlp.fc1 = LoraLinear(block.attn.qkv), LoraLinear(block.mlp.fc1)


def adapted(model: Any) -> None:
    model.blocks[0].attn.proj = Adapter(model.blocks[0].attn.proj)


def parametrized(model: Any) -> None:
    parametrize.register_parametrization(model.blocks[1].mlp.fc2, "weight", Doubled())


def hooked(model: Any) -> None:
    model.blocks[0].mlp.fc1.register_forward_hook(lambda _module, _inputs, output: 1.5 * output)


def patched_linear(model: Any) -> None:
    layer = model.blocks[0].attn.qkv
    layer.forward = MethodType(lambda self, x: 0.5 * nn.functional.linear(x, self.weight, self.bias), layer)


@pytest.mark.parametrize("change", [lora, adapted, parametrized, hooked, patched_linear])
def test_what_is_still_one_linear_layer_is_merged(
    tiny_vit: Make, random_images: Make, change: Callable[[Any], None], tmp_path: Any
) -> None:
    model, images = tiny_vit(num_classes=24), random_images(8)
    plain = model(images)
    torch.manual_seed(0)
    change(model)
    expected = model(images)
    assert (expected - plain).abs().max() > 0.01, "the change matters"
    quantized = quantize(model, images, EIGHT, "tensorrt")
    assert cosine(quantized(images), expected) > 0.98, "eight bits, nothing learned"
    assert quantized.merged and quantized.notes[0].endswith(next(iter(quantized.merged.values())))
    quantized.save(tmp_path / "q.safetensors")
    assert torch.equal(load_quantized(tmp_path / "q.safetensors", model)(images), quantized(images))


def test_a_layer_that_is_not_linear_is_refused_by_name(tiny_vit: Make, random_images: Make) -> None:
    model = tiny_vit(num_classes=24)
    model.blocks[1].mlp.fc1 = Gated(32, 128)
    with pytest.raises(UserError, match=r"module 'blocks\.1\.mlp\.fc1' \(Gated: .*no linear map"):
        quantize(model, random_images(4), EIGHT)


def block_hook(model: Any) -> str:
    model.blocks[1].register_forward_hook(lambda _module, _inputs, output: 1.1 * output)
    return r"'blocks\.1' \(Block\).*forward hook"


def block_forward(model: Any) -> str:
    block = model.blocks[0]
    block.forward = MethodType(lambda self, x, **_: x + self.mlp(self.norm2(x)), block)
    return r"module 'blocks\.0\.attn' is never called"


def model_hook(model: Any) -> str:
    model.register_forward_hook(lambda _module, _inputs, output: output.tanh() * 3)
    return r"does not compute what the model does.*forward hook"


def attention_hook(model: Any) -> str:
    model.blocks[0].attn.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 2,))
    return r"'blocks\.0\.attn.*forward hook"


def changed_scale(model: Any) -> str:
    """State changed after construction, in a way that the copy does not take over."""
    norm = model.blocks[0].norm1
    norm.forward = MethodType(lambda self, x: nn.LayerNorm.forward(self, x) + 0.5, norm)
    return ""


@pytest.mark.parametrize("change", [block_hook, block_forward, model_hook, attention_hook])
def test_what_the_copy_would_lose_stops_the_build_and_is_named(
    tiny_vit: Make, random_images: Make, change: Callable[[Any], str]
) -> None:
    model = tiny_vit(num_classes=24)
    pattern = change(model)
    images = random_images(4)
    before = model(images)
    try:
        quantized = quantize(model, images, EIGHT, "tensorrt")
    except UserError as error:
        assert re.search(pattern, str(error)), error
        assert "rewrites to false" not in str(error), "no advice that leads to a wrong file"
    else:  # the copy kept it: then it has to compute it
        assert cosine(quantized(images), before) > 0.99


def test_a_norm_with_a_patched_forward_is_kept(tiny_vit: Make, random_images: Make) -> None:
    model, images = tiny_vit(num_classes=24), random_images(8)
    changed_scale(model)
    quantized = quantize(model, images, EIGHT.replace(rewrites={"norm": False}), "tensorrt")
    assert cosine(quantized(images), model(images)) > 0.99


def test_half_precision_modules_are_quantized_as_floats(tiny_vit: Make, random_images: Make) -> None:
    model, images = tiny_vit(num_classes=24), random_images(4)
    expected = model(images)
    quantized = quantize(model.half(), images, EIGHT, "tensorrt")
    assert cosine(quantized(images), expected) > 0.99
    assert next(model.parameters()).dtype == torch.float16, "the model passed in stays as it is"


def test_plain_layers_are_not_unusual() -> None:
    assert unusual(nn.Linear(2, 2)) is None
    assert merge_adapters(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == {}
