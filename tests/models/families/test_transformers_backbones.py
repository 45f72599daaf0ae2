"""Hugging Face's backbones: their chain answers the same feature maps."""

from __future__ import annotations

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
