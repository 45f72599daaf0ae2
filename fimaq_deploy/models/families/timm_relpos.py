"""timm's VisionTransformerRelPos: a ViT without positions but for a bias of its scores, stored or computed.

Where a small network computes it, it reads positions alone, so that its answer is a table. Of tokens in front, which
have no position, such a network's bias is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import Mlp, RelPosBias, RelPosMlp
from timm.layers.pos_embed_rel import gen_relative_position_index
from timm.models import vision_transformer_relpos
from timm.models.vision_transformer_relpos import (
    RelPosAttention,
    RelPosBlock,
    ResPostRelPosBlock,
    VisionTransformerRelPos,
)
from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.parts import Attention, Block, PostNormBlock, RelativeBias, tokens
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_head, chain_mlp, embedded_shape, expect_plain_stem


class TimmRelPos(Source):
    name = "relpos"
    kinds = ("timm VisionTransformerRelPos",)

    def claims(self, model: object) -> bool:
        return isinstance(model, VisionTransformerRelPos)

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        for number, block in enumerate(model.blocks):
            expect(f"blocks.{number}", block, (RelPosBlock, ResPostRelPosBlock))
            expect(f"blocks.{number}.attn", block.attn, (RelPosAttention,))
            expect(f"blocks.{number}.mlp", block.mlp, (Mlp,))
        super().check(model, what)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        first = tokens(model.patch_embed.proj, lambda images: _embedded(model, images), shape, positions=False)
        blocks = {f"blocks.{number}": _block(one, model.shared_rel_pos) for number, one in enumerate(model.blocks)}
        return {"patch_embed": first, **blocks, "head": chain_head(model)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return vision_transformer_relpos.checkpoint_filter_fn(dict(state), model)


def _embedded(model: Any, images: Tensor) -> Tensor:
    patches = model.patch_embed(images)
    if model.cls_token is None:
        return patches
    return torch.cat((model.cls_token.expand(len(patches), -1, -1), patches), 1)


def _block(block: Any, shared: Any) -> Block:
    own = block.attn
    attention = Attention(
        own.qkv, own.proj, own.num_heads, q_norm=own.q_norm, k_norm=own.k_norm, bias=_bias(own.rel_pos or shared)
    )
    if isinstance(block, ResPostRelPosBlock):
        return PostNormBlock(block.norm1, attention, block.norm2, chain_mlp(block.mlp))
    first, second = (getattr(one, "gamma", None) for one in (block.ls1, block.ls2))
    return Block(block.norm1, attention, block.norm2, chain_mlp(block.mlp), scales=(first, second))


@torch.no_grad()
def _bias(rel_pos: RelPosBias | RelPosMlp | None) -> RelativeBias | None:
    """Its entries by place: every place with the same index has the same numbers."""
    if rel_pos is None:
        return None
    bias = rel_pos.get_bias()[0].permute(1, 2, 0)
    index = gen_relative_position_index(rel_pos.window_size, class_token=rel_pos.prefix_tokens > 0).to(bias.device)
    index = index.view(bias.shape[:2])
    table = bias.new_zeros(int(index.max()) + 1, bias.shape[2])
    table[index.flatten()] = bias.flatten(0, 1)
    return RelativeBias(table, index)


FAMILY = TimmRelPos()
