"""RF-DETR's encoder of windows: its chain answers the same maps, alone and inside of the detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.inside import find_backbone, splice

hf = pytest.importorskip("transformers")
if not hasattr(hf, "RfDetrConfig"):
    pytest.skip("transformers without RF-DETR", allow_module_level=True)


def config(**changes: Any) -> Any:
    size = {"image_size": 32, "patch_size": 4, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    windows = {"num_windows": 2, "window_block_indexes": [0, 1, 3], "out_features": ["stage2", "stage4"]}
    return hf.RfDetrDinov2Config(**{**size, **windows, **changes})


def encoder(**changes: Any) -> Any:
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Backbone

    torch.manual_seed(0)
    model = RfDetrDinov2Backbone(config(**changes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({}, 32),
        ({}, 16),
        ({"num_windows": 1}, 32),
        ({"apply_layernorm": False, "out_features": ["stem", "stage3"]}, 32),
    ],
)
def test_the_chain_answers_the_same_maps(changes: Any, side: int) -> None:
    model, images = encoder(**changes), torch.randn(2, 3, side, side)
    family = family_of(model)
    family.check(model)
    found, own = family.as_chain(model, (3, side, side))(images), model(images)
    for ours, theirs in zip(found.values(), own.feature_maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_images_without_whole_windows_are_refused() -> None:
    model = encoder()
    for shape in ((3, 32, 16), (3, 12, 12)):
        with pytest.raises(UserError, match="expected square ones of 2 whole windows a side"):
            family_of(model).as_chain(model, shape)


@torch.no_grad()
def test_inside_of_the_detector() -> None:
    torch.manual_seed(0)
    model = hf.RfDetrForObjectDetection(hf.RfDetrConfig(backbone_config=config(), num_queries=4)).eval()
    inside, images = find_backbone(model), torch.randn(1, 3, 32, 32)
    assert inside.name == "model.backbone.backbone"
    made = splice(model, inside.family.as_chain(inside.encoder, (3, 32, 32)))
    torch.testing.assert_close(made(images).logits, model(images).logits, atol=1e-3, rtol=1e-3)
