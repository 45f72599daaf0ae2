"""What families of several outputs have in common."""

from __future__ import annotations

import timm
import torch

from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.tapped import Tapped


def test_the_chain_ends_where_the_last_map_is_taken() -> None:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", features_only=True, out_indices=(0, 1), **size).eval()
    family = family_of(model)
    chain = family.as_chain(model, (3, 32, 32))
    assert isinstance(chain, Tapped)
    assert chain.names == ("patch_embed", "blocks.0", "blocks.1", "head")
    assert family.classes(model) == 0
    assert "hands out its residual stream" in str(family.stream(model))
    with torch.no_grad():
        found = family.original(model)(torch.randn(1, 3, 32, 32))
    assert list(found) == ["blocks_0", "blocks_1"]
