"""Hugging Face's backbones: their chain answers the same feature maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")

SWIN = {"image_size": 32, "embed_dim": 32, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
DINO = {"image_size": 28, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def swin(kind: str, stages: list[str]) -> Any:
    return getattr(hf, f"{kind}Backbone")(getattr(hf, f"{kind}Config")(**SWIN, out_features=stages))


def dino(kind: str, **changes: Any) -> Any:
    config = getattr(hf, f"{kind}Config")(**DINO, out_features=["stage1", "stage2"], **changes)
    return getattr(hf, f"{kind}Backbone")(config)


MAKERS = {
    "swin": (lambda: swin("Swin", ["stage1", "stage2"]), (3, 32, 32)),
    "swin of another size": (lambda: swin("Swin", ["stem", "stage2"]), (3, 48, 16)),
    "swinv2": (lambda: swin("Swinv2", ["stage1", "stage2"]), (3, 32, 32)),
    "dinov2": (lambda: dino("Dinov2"), (3, 28, 42)),
    "dinov2, rows": (lambda: dino("Dinov2", reshape_hidden_states=False), (3, 28, 28)),
    "dinov2, no norm": (lambda: dino("Dinov2", apply_layernorm=False), (3, 28, 28)),
    "dinov2 with registers": (lambda: dino("Dinov2WithRegisters"), (3, 28, 28)),
}


@torch.no_grad()
@pytest.mark.parametrize(("make", "shape"), MAKERS.values(), ids=MAKERS.keys())
def test_the_chain_answers_the_same_maps(make: Any, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model, images = make().eval(), torch.randn(2, *shape)
    family = family_of(model)
    family.check(model)
    found = family.as_chain(model, shape)(images)
    reply, own = family.reply(model, list(found.values())), model(images)
    assert list(found) == list(model.out_features)
    for ours, theirs in zip(reply.feature_maps, own.feature_maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_blocks_of_another_kind_are_refused() -> None:
    model = swin("Swin", ["stage2"])
    model.swin.encoder.layers[0].blocks[1] = torch.nn.Identity()
    with pytest.raises(UserError, match=r"^module 'encoder.layers.0.blocks.1' is a Identity"):
        family_of(model).check(model)


def depth_model() -> Any:
    """Depth Anything calls its backbone by a method of the backbone's own."""
    body = hf.Dinov2Config(**{**DINO, "num_hidden_layers": 4}, out_features=["stage1", "stage2", "stage3", "stage4"],
                           reshape_hidden_states=False)  # fmt: skip
    narrow = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "head_hidden_size": 8}
    return hf.DepthAnythingForDepthEstimation(
        hf.DepthAnythingConfig(backbone_config=body, reassemble_hidden_size=32, **narrow)
    )


def uper_net() -> Any:
    body = hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4
    )
    body.out_features = ["stage1", "stage2", "stage3", "stage4"]
    narrow = {"hidden_size": 16, "auxiliary_in_channels": 64, "auxiliary_channels": 8, "num_labels": 3}
    return hf.UperNetForSemanticSegmentation(hf.UperNetConfig(backbone_config=body, **narrow))


def mask2former() -> Any:
    body = hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4
    )
    body.out_features = ["stage1", "stage2", "stage3", "stage4"]
    wide = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32}
    narrow = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "num_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 4, "num_labels": 3}
    return hf.Mask2FormerForUniversalSegmentation(
        hf.Mask2FormerConfig(backbone_config=body, **wide, **narrow, **layers)
    )


WHOLE = {
    "depth anything": (depth_model, "backbone", (3, 28, 42)),
    "upernet": (uper_net, "backbone", (3, 32, 32)),
    "mask2former": (mask2former, "model.pixel_level_module.encoder", (3, 32, 32)),
}


@pytest.mark.parametrize(("make", "place", "shape"), WHOLE.values(), ids=WHOLE.keys())
def test_the_chain_in_its_place_changes_nothing(
    make: Any, place: str, shape: tuple[int, int, int], lively: Any, same_with_its_chain: Any
) -> None:
    same_with_its_chain(lively(make), place, shape)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "place", "shape"), WHOLE.values(), ids=WHOLE.keys())
def test_deployed_inside(
    make: Any, place: str, shape: tuple[int, int, int], lively: Any, deployed_inside: Any, tmp_path: Path
) -> None:
    assert deployed_inside(lively(make), shape, tmp_path).place == place
