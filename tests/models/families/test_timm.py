"""What timm's families share: its own modules as parts compute what timm's do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.layers.attention import Attention
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.head import ATTENTION_POOL
from fimaq_deploy.models.families.timm import (
    Head,
    TimmAttention,
    block_norms,
    chain_head,
    chain_mlp,
    embedded_shape,
    expect_plain_stem,
)

Make = Callable[..., Any]
ATTENTIONS = [
    {},
    {"qk_norm": True, "norm_layer": nn.LayerNorm},
    {"scale_norm": True, "norm_layer": nn.LayerNorm},
    {"attn_head_dim": 24},
    {"gated": True},
    {"qkv_bias": True, "proj_bias": False},
]


@pytest.mark.parametrize("settings", ATTENTIONS, ids=str)
def test_attention_without_quantizers_is_timms(settings: dict[str, Any], lively: Make) -> None:
    attention, x = lively(lambda: Attention(32, 4, **settings)), torch.randn(2, 9, 32)
    torch.testing.assert_close(TimmAttention(attention)(x), attention(x), rtol=1e-5, atol=1e-6)


def test_attention_masks_are_refused() -> None:
    attention, x = TimmAttention(Attention(32, 4)), torch.randn(1, 4, 32)
    with pytest.raises(NotImplementedError):
        attention(x, attn_mask=torch.zeros(4, 4))
    with pytest.raises(NotImplementedError):
        attention(x, is_causal=True)


MLPS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Mlp(8, 12, norm_layer=nn.LayerNorm),
    "gate behind": lambda: GluMlp(8, 12),
    "gate in front": lambda: GluMlp(8, 12, act_layer=nn.SiLU, gate_last=False, norm_layer=nn.LayerNorm),
    "two projections": lambda: SwiGLU(8, 12, norm_layer=nn.LayerNorm),
}


@pytest.mark.parametrize("kind", MLPS)
def test_an_mlp_of_a_chain_is_timms(kind: str, lively: Make) -> None:
    mlp, x = lively(MLPS[kind]), torch.randn(2, 5, 8)
    torch.testing.assert_close(chain_mlp(mlp)(x), mlp(x), rtol=1e-5, atol=1e-6)


HEADS = [{}, {"global_pool": "avg"}, {"global_pool": "avg", "fc_norm": False}, {"global_pool": "avgmax"}]


@pytest.mark.parametrize("settings", [*HEADS, {"global_pool": "map", "class_token": False}], ids=str)
@pytest.mark.parametrize("make", [chain_head, partial(Head, parts=("norm", "head"))], ids=["of a chain", "a stage"])
def test_a_head_is_timms_up_to_the_feature_and_to_the_logits(make: Make, settings: Any, tiny_vit: Make) -> None:
    model, x = tiny_vit(**settings), torch.randn(3, 5, 32)
    head = make(model)
    torch.testing.assert_close(head(x), model.forward_head(model.norm(x)))
    torch.testing.assert_close(head.features(x), model.forward_head(model.norm(x), pre_logits=True))


def test_attention_pooling_is_kept_with_the_reason(tiny_vit: Make) -> None:
    model = tiny_vit(global_pool="map", class_token=False)
    kept: Any = chain_head(model).pool
    assert kept.part is model.attn_pool and kept.reason == ATTENTION_POOL


def test_the_shape_of_images_is_the_embeddings(tiny_vit: Make) -> None:
    assert embedded_shape(tiny_vit(img_size=(16, 24), in_chans=1).patch_embed) == (1, 16, 24)
    embed = tiny_vit().patch_embed
    embed.img_size = None
    with pytest.raises(UserError, match=r"^the model has no fixed image size .*: create it with img_size="):
        embedded_shape(embed)


def test_hybrid_stems_are_refused_by_name(tiny_vit: Make) -> None:
    expect_plain_stem(tiny_vit(), "mine")
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
    model = tiny_vit(embed_layer=partial(HybridEmbed, backbone=backbone), patch_size=1)
    with pytest.raises(UserError, match=r"^mine has a HybridEmbed stem: expected a plain patch embedding"):
        expect_plain_stem(model, "mine")


class Own(nn.Module):
    """Something that nobody knows the inside of."""


def test_norms_of_a_block_are_found_with_all_that_read_them(tiny_vit: Make) -> None:
    block = tiny_vit(mlp_layer=SwiGLU).blocks[0]
    block.attn = Attention(32, 2, gated=True)
    first, second = block_norms("b.", block, can_shift=False)
    assert (first.name, first.norm, first.can_shift) == ("b.norm1", block.norm1, False)
    assert first.linears == (block.attn.qkv, block.attn.gate)
    assert (second.name, second.norm, second.can_shift) == ("b.norm2", block.norm2, True)
    assert second.linears == (block.mlp.fc1_g, block.mlp.fc1_x)


def test_norms_in_front_of_the_unknown_are_not(tiny_vit: Make) -> None:
    block = tiny_vit().blocks[0]
    block.attn = Own()
    assert [reader.name for reader in block_norms("", block)] == ["norm2"]
    block.mlp = GluMlp(32, 64, use_conv=True)
    assert list(block_norms("", block)) == []
