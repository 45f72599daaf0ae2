"""timm's NaFlexVit, C-RADIO among them: a ViT of images of any size, deployed for one.

Its patches go through a Linear, whose numbers are those of a convolution. Positions are resampled as the model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.attention import Attention as TimmAttention
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.models import naflexvit
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.parts import Attention, Block, Tokens
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_head, chain_mlp

_USUAL_SIDE = 224


class TimmNaFlex(Source):
    name = "naflex"
    kinds = ("timm NaFlexVit",)

    def claims(self, model: object) -> bool:
        return isinstance(model, NaFlexVit)

    def image_shape(self, model: Any) -> Shape:
        """`model.image_size` where it was set, else what it was made for, else what its configuration says."""
        config = getattr(model, "pretrained_cfg", None) or {}
        asked = getattr(model, "image_size", None) or model.embeds.default_img_size
        height, width = asked or tuple(config.get("input_size", ()))[1:] or (_USUAL_SIDE, _USUAL_SIDE)
        return model.in_chans, height, width

    def check(self, model: Any, what: str = "the model") -> None:
        if model.rope is not None:
            raise UserError("module 'rope': rotary positions of a NaFlexVit are not understood")
        if model.pool_include_prefix:
            raise UserError("module 'head': pooling of class and register tokens with the patches is not understood")
        expect("embeds.norm", model.embeds.norm, (nn.Identity,))
        for number, block in enumerate(model.blocks):
            expect(f"blocks.{number}", block, (TimmBlock,))
            expect(f"blocks.{number}.attn", block.attn, (TimmAttention,))
            expect(f"blocks.{number}.mlp", block.mlp, (Mlp, GluMlp, SwiGLU))

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        _require_patches(model.embeds, shape)
        blocks = {f"blocks.{number}": _block(one) for number, one in enumerate(model.blocks)}
        return {"patch_embed": _tokens(model, shape), **blocks, "head": chain_head(model)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return naflexvit.checkpoint_filter_fn(dict(state), model)


def _require_patches(embeds: Any, shape: Shape) -> None:
    sides = zip(shape[1:], embeds.patch_size, strict=True)
    if shape[0] != embeds.in_chans or any(side % patch or not side for side, patch in sides):
        down, right = embeds.patch_size
        raise UserError(
            f"the model takes no images of {shape}: expected {embeds.in_chans} channels and whole patches of "
            f"{down}×{right}"
        )


@torch.no_grad()
def _tokens(model: Any, shape: Shape) -> Tokens:
    """Its constants are what it embeds where the projection answers zeros."""
    embeds = model.embeds
    handle = embeds.proj.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    try:
        constants, _ = embeds(embeds.proj.weight.new_zeros(1, *shape))
    finally:
        handle.remove()
    patches = constants.shape[1] - model.num_prefix_tokens
    positions = embeds.pos_embed_type != "none"
    return Tokens(_convolution(embeds), constants, patches, positions=positions, norm=model.norm_pre)


def _convolution(embeds: Any) -> nn.Conv2d:
    linear = embeds.proj
    if isinstance(linear, nn.Conv2d):
        return linear
    (down, right), channels = embeds.patch_size, embeds.in_chans
    weight = linear.weight.view(-1, down, right, channels).permute(0, 3, 1, 2) if embeds.channels_last else None
    weight = linear.weight.view(-1, channels, down, right) if weight is None else weight
    biased = linear.bias is not None
    made = nn.Conv2d(
        channels, len(weight), (down, right), (down, right), bias=biased, device=weight.device, dtype=weight.dtype
    )
    made.weight.copy_(weight)
    if made.bias is not None:
        made.bias.copy_(linear.bias)
    return made.requires_grad_(False)


def _block(block: Any) -> Block:
    own = block.attn
    attention = Attention(
        own.qkv,
        own.proj,
        own.num_heads,
        q_norm=own.q_norm,
        k_norm=own.k_norm,
        norm=own.norm,
        gate=getattr(own, "gate", None),
    )
    first, second = (getattr(one, "gamma", None) for one in (block.ls1, block.ls2))
    return Block(block.norm1, attention, block.norm2, chain_mlp(block.mlp), scales=(first, second))


FAMILY = TimmNaFlex()
