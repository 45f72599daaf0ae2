"""timm's Beit: a ViT with a bias by relative position, of each block or shared, and a bias of q and v alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers import Mlp, SwiGLU
from timm.models import beit
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.parts import Attention, Block, RelativeBias, tokens, with_bias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_head, chain_mlp, embedded_shape, expect_plain_stem


class TimmBeit(Source):
    name = "beit"
    kinds = ("timm Beit",)

    def claims(self, model: object) -> bool:
        return isinstance(model, Beit)

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        for number, block in enumerate(model.blocks):
            expect(f"blocks.{number}", block, (BeitBlock,))
            expect(f"blocks.{number}.attn", block.attn, (BeitAttention,))
            expect(f"blocks.{number}.mlp", block.mlp, (Mlp, SwiGLU))
        super().check(model, what)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        first = tokens(model.patch_embed.proj, lambda images: _embedded(model, images), shape)
        blocks = {f"blocks.{number}": _block(one, model.rel_pos_bias) for number, one in enumerate(model.blocks)}
        return {"patch_embed": first, **blocks, "head": chain_head(model)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return beit.checkpoint_filter_fn(dict(state), model)


def _embedded(model: Any, images: Tensor) -> Tensor:
    patches = model.patch_embed(images)
    x = model.cls_token.new_zeros(1, 1 + patches.shape[1], patches.shape[2])
    x[:, :1], x[:, 1:] = model.cls_token, patches
    return x if model.pos_embed is None else x + model.pos_embed


def _block(block: Any, shared: Any) -> Block:
    own = block.attn
    qkv = with_bias(own.qkv, own.q_bias, own.k_bias, own.v_bias)
    attention = Attention(qkv, own.proj, own.num_heads, bias=_bias(own, shared))
    scales = (block.gamma_1, block.gamma_2)
    return Block(block.norm1, attention, block.norm2, chain_mlp(block.mlp), scales=scales)


def _bias(own: Any, shared: Any) -> RelativeBias | None:
    """The block's table and the shared one have the same entries: one table holds their sum."""
    found = [one for one in (own, shared) if getattr(one, "relative_position_bias_table", None) is not None]
    if not found:
        return None
    table = sum((one.relative_position_bias_table for one in found[1:]), found[0].relative_position_bias_table)
    return RelativeBias(table, found[0].relative_position_index)


FAMILY = TimmBeit()
