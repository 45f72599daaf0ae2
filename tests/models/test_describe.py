from __future__ import annotations

import pytest
import timm
from timm.models import VisionTransformer
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import describe_model, require_supported
from fimaq_deploy.models.load import load_model, open_model


def tiny_vit() -> VisionTransformer:
    return VisionTransformer(img_size=16, patch_size=8, num_classes=5, embed_dim=16, depth=1, num_heads=2)


@pytest.mark.parametrize(("name", "shape"), [("vit_digits", (1, 16, 16)), ("swin_digits", (1, 16, 16))])
def test_bundled_description(name: str, shape: tuple[int, int, int]) -> None:
    info = describe_model(load_model(name))
    assert (info.name, info.input_shape, info.classes) == (name, shape, 10)
    assert (info.mean, info.std, info.crop_pct) == ((0.5,), (0.5,), 1.0)


def test_timm_description_follows_the_module_where_it_was_changed() -> None:
    info = describe_model(timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=4), "mine")
    assert info.name == "mine"
    assert info.input_shape == (1, 32, 32)
    assert info.mean == (0.5,)
    assert (info.interpolation, info.crop_pct, info.classes) == ("bicubic", 0.9, 4)


def test_description_of_a_module_of_ones_own() -> None:
    model = tiny_vit()
    info = describe_model(model)
    assert (info.name, info.crop_pct, info.mean[0]) == ("VisionTransformer", 1.0, 0.485)
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1), "crop_pct": 0.8, "label_names": ["a", "b"]}
    assert describe_model(model).mean == (0.1, 0.2, 0.3)
    assert describe_model(model).crop_pct == 0.8
    assert describe_model(model).class_names == ("a", "b")


def test_description_needs_a_supported_model_of_fixed_size() -> None:
    with pytest.raises(UserError, match="the model is a Linear"):
        describe_model(nn.Linear(1, 1))
    model = tiny_vit()
    model.patch_embed.img_size = None
    with pytest.raises(UserError, match="no fixed image size"):
        describe_model(model)
    with pytest.raises(UserError, match="the model is a str"):
        require_supported("model")


def test_a_module_of_any_size_is_deployed_for_one_and_that_is_said(
    factories: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from importlib import import_module

    monkeypatch.syspath_prepend(str(tmp_path))
    module = import_module(factories)
    monkeypatch.setitem(module.SIZES, "dynamic_img_size", True)
    assert open_model(f"{factories}:tiny_vit").notes == (
        "the module takes images of any size, its files take 16×24 alone",
    )
    del sys.modules[factories]
