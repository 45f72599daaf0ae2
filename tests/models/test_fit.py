"""A timm name takes the classes, channels and image size of a checkpoint; what a user asks for goes first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.load import Loaded, open_model

Refusal = Callable[..., str]
Same = Callable[[nn.Module, nn.Module], bool]

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
SMALL = {VIT: {"depth": 1, "img_size": 64}, SWIN: {"depths": (1, 1), "num_heads": (3, 6), "embed_dim": 24}}


@pytest.fixture(scope="module", autouse=True)
def small() -> Any:
    """timm's tiny models with a block or two and small images; names and shapes are as published."""
    patch = pytest.MonkeyPatch()
    real = timm.create_model
    patch.setattr(timm, "create_model", lambda name, **options: real(name, **{**SMALL.get(name, {}), **options}))
    yield
    patch.undo()


def opened(name: str, model: nn.Module, path: Path, change: Any = dict, **sizes: Any) -> Loaded:
    save_file(change(model.state_dict()), path / "a.safetensors")
    return open_model(name, path / "a.safetensors", sizes=Sizes(**sizes))


def without_head(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head")}


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_another_number_of_classes(name: str, tmp_path: Path, same: Same) -> None:
    trained = timm.create_model(name, num_classes=7)
    loaded = opened(name, trained, tmp_path)
    assert describe_model(loaded.model).classes == 7
    assert same(loaded.model, trained)
    assert loaded.notes == ()


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_without_a_head_the_model_answers_features(name: str, tmp_path: Path) -> None:
    trained = timm.create_model(name).eval()
    loaded = opened(name, trained, tmp_path, without_head)
    images = torch.rand(2, *describe_model(trained).input_shape)
    features = trained.forward_head(trained.forward_features(images), pre_logits=True)
    assert torch.equal(loaded.model(images), features)
    assert describe_model(loaded.model).classes == 0
    assert loaded.notes == (f"{tmp_path}/a.safetensors has no head: the model answers features",)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_a_backbone_under_a_name_and_without_a_head_answers_features(suffix: str, tmp_path: Path) -> None:
    trained = timm.create_model(VIT).eval()
    path = tmp_path / f"a{suffix}"
    torch.save({f"backbone.{name}": tensor for name, tensor in without_head(trained.state_dict()).items()}, path)
    loaded = open_model(VIT, path)
    images = torch.rand(2, *describe_model(trained).input_shape)
    features = trained.forward_head(trained.forward_features(images), pre_logits=True)
    assert torch.equal(loaded.model.eval()(images), features)
    assert any("has no head: the model answers features" in note for note in loaded.notes)


@pytest.mark.parametrize("channels", [1, 4, 12])
@pytest.mark.parametrize("name", [VIT, SWIN])
def test_other_channels(name: str, channels: int, tmp_path: Path, same: Same) -> None:
    trained = timm.create_model(name, in_chans=channels)
    loaded = opened(name, trained, tmp_path)
    assert describe_model(loaded.model).input_shape[0] == channels
    assert same(loaded.model, trained)


def test_the_image_size_of_the_positions(tmp_path: Path, same: Same) -> None:
    trained = timm.create_model(VIT, img_size=96)
    loaded = opened(VIT, trained, tmp_path)
    assert describe_model(loaded.model).input_shape == (3, 96, 96)
    assert same(loaded.model, trained)
    assert loaded.notes == ()


def test_an_image_size_that_is_asked_for_resamples_positions_and_says_so(tmp_path: Path) -> None:
    trained = timm.create_model(VIT, img_size=96)
    loaded = opened(VIT, trained, tmp_path, image_size=(64, 128))
    assert describe_model(loaded.model).input_shape == (3, 64, 128)
    expected = resample_abs_pos_embed(trained.pos_embed, new_size=[4, 8], num_prefix_tokens=1)
    assert torch.equal(loaded.model.state_dict()["pos_embed"], expected)
    assert loaded.notes == ("resampled for the size that was asked for: pos_embed from 1×37×192 to 1×33×192",)


def test_a_swin_of_another_image_size_keeps_its_tables(tmp_path: Path, same: Same) -> None:
    trained = timm.create_model(SWIN)
    loaded = opened(SWIN, trained, tmp_path, image_size=(112, 168))
    assert describe_model(loaded.model).input_shape == (3, 112, 168)
    assert same(loaded.model, trained)
    assert loaded.notes == ()


def test_a_swin_whose_windows_shrink_resamples_its_tables_and_says_so(tmp_path: Path) -> None:
    loaded = opened(SWIN, timm.create_model(SWIN), tmp_path, image_size=(32, 32))
    assert loaded.model(torch.rand(1, 3, 32, 32)).shape == (1, 1000)
    (note,) = loaded.notes
    assert note.startswith(
        "resampled for the size that was asked for: layers.1.blocks.0.attn.relative_position_bias_table"
    )


def test_positions_of_no_square_need_a_size(tmp_path: Path, refusal: Refusal, same: Same) -> None:
    trained = timm.create_model(VIT, img_size=(64, 128))
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    assert "positions for 32 patches, no square: name the size by --image-size" in refusal(
        VIT, tmp_path / "a.safetensors"
    )


def test_channels_that_are_asked_for_are_made_of_those_that_are_there(tmp_path: Path) -> None:
    trained = timm.create_model(VIT)
    loaded = opened(VIT, trained, tmp_path, in_chans=1)
    assert describe_model(loaded.model).input_shape[0] == 1
    grey = loaded.model.state_dict()["patch_embed.proj.weight"]
    assert torch.allclose(grey, trained.patch_embed.proj.weight.sum(1, keepdim=True), atol=1e-5)
    assert loaded.notes == (
        "resampled for the size that was asked for: patch_embed.proj.weight from 192×3×16×16 to 192×1×16×16",
    )


def test_random_weights_of_any_size() -> None:
    loaded = open_model(VIT, "random", sizes=Sizes((32, 48), 5))
    assert describe_model(loaded.model).input_shape == (5, 32, 48)


@pytest.mark.parametrize(("name", "size"), [(VIT, (8, 8)), (VIT, (64, 15)), (SWIN, (3, 3))])
def test_sizes_that_the_model_cannot_have(name: str, size: Any, refusal: Refusal) -> None:
    assert f"model '{name}' cannot be made with img_size ({size[0]}, {size[1]})" in refusal(
        name, "random", image_size=size
    )


def test_another_patch_size_is_another_architecture(tmp_path: Path, refusal: Refusal) -> None:
    save_file(timm.create_model(VIT, patch_size=8).state_dict(), tmp_path / "a.safetensors")
    assert "is of another architecture" in refusal(VIT, tmp_path / "a.safetensors")
