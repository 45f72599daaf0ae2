from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import describe_model, require_finite
from fimaq_deploy.models.load import load_model

Refusal = Callable[..., str]
Same = Callable[[nn.Module, nn.Module], bool]


def tiny_vit(**changes: Any) -> VisionTransformer:
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 5, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return VisionTransformer(**{**sizes, **changes})


@pytest.mark.parametrize("name", ["vit_digits", "swin_digits"])
def test_bundled_model_is_trained_and_in_eval_mode(name: str, same: Same) -> None:
    model = load_model(name)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not same(model, load_model(name, "random"))


def test_random_weights_come_from_the_seed_alone(same: Same) -> None:
    state = torch.random.get_rng_state()
    a, b, c = (load_model("vit_digits", "random", seed=seed) for seed in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_timm_name_and_its_short_name_are_the_same_model(same: Same) -> None:
    model = load_model("vit_t", "random", seed=3)
    assert isinstance(model, VisionTransformer)
    assert same(model, load_model("vit_tiny_patch16_224", "random", seed=3))


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224.augreg_in21k"])
def test_other_names_of_the_family(name: str) -> None:
    model = load_model(name, "random")
    assert describe_model(model).input_shape == (3, 224, 224)


def test_other_architecture_is_named(refusal: Refusal) -> None:
    assert refusal("resnet18", "random").startswith("model 'resnet18' is a ResNet: a convolutional network, ")
    assert "HybridEmbed stem" in refusal("vit_tiny_r_s16_p8_224", "random")


def test_factory_with_a_checkpoint(factories: str, tmp_path: Path, same: Same) -> None:
    trained = tiny_vit(img_size=(16, 24), in_chans=2)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    assert same(load_model(f"{factories}:tiny_vit", "trained.safetensors"), trained)


def test_original_swin_checkpoint_is_translated(tmp_path: Path, same: Same) -> None:
    trained = load_model("swin_digits", "random", seed=4)
    state = trained.state_dict()
    original = {
        k.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head."): v
        for k, v in state.items()
    }
    original["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    torch.save({"model": original}, tmp_path / "a.pth")
    assert same(load_model("swin_digits", tmp_path / "a.pth"), trained)


def test_checkpoint_of_another_architecture(tmp_path: Path, refusal: Refusal) -> None:
    save_file(load_model("swin_digits", "random").state_dict(), tmp_path / "a.safetensors")
    text = refusal("vit_digits", tmp_path / "a.safetensors")
    assert "is of another architecture than vit_digits: " in text
    assert "tensors are missing (first cls_token)" in text
    assert "59 are unexpected (first " in text
    assert "patch_embed.proj.weight has shape (32, 1, 2, 2), expected (64, 1, 4, 4)" in text


def test_checkpoint_of_another_image_size_is_not_resampled(tmp_path: Path, factories: str, refusal: Refusal) -> None:
    state = tiny_vit(in_chans=2, img_size=(32, 24)).state_dict()
    torch.save({"model": {**state, "pre_logits.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    assert "pos_embed has shape (1, 13, 16), expected (1, 7, 16)" in refusal(f"{factories}:tiny_vit", "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, refusal: Refusal) -> None:
    model = load_model("vit_digits", "random")
    model.blocks[1].mlp.fc1.weight.data[0, :3] = value
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert "weight blocks.1.mlp.fc1.weight: 3 of 16384 values are NaN" in refusal(
        "vit_digits", tmp_path / "a.safetensors"
    )
    with pytest.raises(UserError, match=r"blocks\.1\.mlp"):
        require_finite(model)


def test_a_timm_name_with_the_weights_of_another(tmp_path: Path, refusal: Refusal) -> None:
    save_file(timm.create_model("vit_small_patch16_224", depth=1).state_dict(), tmp_path / "a.safetensors")
    assert "is of another architecture than vit_t" in refusal("vit_t", tmp_path / "a.safetensors")


@pytest.mark.parametrize("device", ["meta", "cuda:99", "", "mps:7"])
def test_a_device_is_tried_before_anything_is_loaded(device: str, refusal: Refusal) -> None:
    assert "device" in refusal("vit_digits", "absent.pth", device=device)
