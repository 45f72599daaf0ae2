"""timm's features_only models: their chain answers the same maps, and learning follows every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models._features import FeatureGetterNet

import fimaq_deploy as fd
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of, find_family

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
SWIN = {"img_size": (32, 48), "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2)}


def made(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, features_only=True, **changes).eval()


def vit(**changes: Any) -> Any:
    return made("vit_tiny_patch16_224", **{**VIT, "out_indices": (0, 2), **changes})


def swin(name: str = "swin_tiny_patch4_window7_224", **changes: Any) -> Any:
    return made(name, **{**SWIN, "out_indices": (0, 1), **changes})


def normed() -> Any:
    torch.manual_seed(0)
    return FeatureGetterNet(timm.create_model("vit_tiny_patch16_224", **VIT, reg_tokens=2), (-3, -1), norm=True).eval()


MAKERS = {
    "vit": vit,
    "vit, one map": lambda: vit(out_indices=(1,)),
    "vit of any size": lambda: vit(dynamic_img_size=True),
    "vit with norms": normed,
    "swin": swin,
    "swin by number": lambda: swin(feature_cls="dict"),
    "swin, channels first": lambda: swin(feature_cls="getter"),
    "swinv2": lambda: swin("swinv2_tiny_window8_256"),
    "eva": lambda: made("eva02_tiny_patch14_224", img_size=28, embed_dim=32, depth=2, num_heads=2, out_indices=(0, 1)),
    "beit": lambda: made("beit_base_patch16_224", img_size=32, embed_dim=32, depth=2, num_heads=2, out_indices=(0, 1)),
}


@torch.no_grad()
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_the_chain_answers_the_same_maps(make: Any) -> None:
    model = make()
    family = family_of(model)
    family.check(model)
    chain, images = family.as_chain(model), torch.randn(2, *family.image_shape(model))
    own, found, named = model(images), chain(images), family.original(model)(images)
    assert list(found) == list(named) == list(family.outputs(model))  # type: ignore[attr-defined]
    reply = family.reply(model, list(found.values()))
    assert type(reply) is type(own) if isinstance(own, list) else reply.keys() == own.keys()
    for ours, theirs in zip(found.values(), own.values() if isinstance(own, dict) else own, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_what_hands_out_maps_of_other_blocks_is_refused() -> None:
    assert find_family(made("resnet18")) is None
    model = timm.create_model(
        "swinv2_cr_tiny_224", img_size=64, window_size=4, depths=(1, 1), embed_dim=32, num_heads=(1, 2)
    )
    with pytest.raises(UserError, match="answers maps of a SwinTransformerV2Cr, whose blocks are not handed out here"):
        family_of(FeatureGetterNet(model, 1, prune=False)).check(FeatureGetterNet(model, 1, prune=False))


@pytest.mark.parametrize("make", [pytest.param(vit, marks=pytest.mark.slow), swin], ids=["vit", "swin"])
def test_the_whole_road(make: Any, tmp_path: Path) -> None:
    """Quantized with the loss that follows all maps, saved, loaded, exported with an output each, and run."""
    model, short = make(), ["reconstruction.iterations=4", "reconstruction.images=8", "scale_search.candidates=8"]
    shape = family_of(model).image_shape(model)
    images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    recipe = fd.Recipe.load("w4a8").with_settings([*short, "tuning.iterations=1", "reconstruction.batch_size=4"])
    quantized = fd.quantize(model, images, recipe)
    quantized.save(tmp_path / "q.safetensors")
    loaded, answers = fd.load_quantized(tmp_path / "q.safetensors", model), quantized(images[:2])
    expected = family_of(model).original(model)(images[:2])
    run = fd.load_engine(fd.export_onnx(loaded, tmp_path / "model.onnx"), optimisations=False)
    outputs = run.outputs(images[:2].numpy())
    assert list(outputs) == list(answers)
    for name, one in answers.items():
        assert torch.equal(loaded(images[:2])[name], one)
        np.testing.assert_allclose(outputs[name], one.numpy(), atol=0.05 * float(one.abs().max()))
        assert torch.nn.functional.cosine_similarity(one.flatten(), expected[name].flatten(), dim=0) > 0.98
