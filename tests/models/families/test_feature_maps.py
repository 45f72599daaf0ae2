"""Maps by the names of their stages, whichever form the model answers in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.feature_maps import FeatureMaps

hf = pytest.importorskip("transformers")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def backbone() -> nn.Module:
    return hf.VitDetBackbone(hf.VitDetConfig(**SIZES, out_features=["stem", "stage2"])).eval()


@torch.no_grad()
def test_a_tuple_holds_the_same_maps_as_a_reply_by_name() -> None:
    model, images = backbone(), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    family = family_of(model)
    assert isinstance(family, FeatureMaps) and family.outputs(model) == ("stem", "stage2")
    named = family.tensors(model, model(images))
    for own, other in zip(named, family.tensors(model, model(images, return_dict=False)), strict=True):
        assert torch.equal(own, other)
    reply = family.reply(model, named)
    assert reply.feature_maps == tuple(named) == reply["feature_maps"] == reply[0]
