"""Links of timm's ViT, Swin and SwinV2 for images of one shape, where the module itself is no chain that can be cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import swin_transformer, swin_transformer_v2
from torch import nn

from fimaq_deploy.models.families import parts, windows
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.timm import chain_mlp
from fimaq_deploy.models.families.timm_swinv2 import chain_block as second_block

_MERGINGS = (swin_transformer.PatchMerging, swin_transformer_v2.PatchMerging, nn.Identity)
_STAGES = (swin_transformer.SwinTransformerStage, swin_transformer_v2.SwinTransformerV2Stage)
_BLOCKS = (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)


def check_windows(layers: Sequence[tuple[str, Any]]) -> None:
    """Refuse layers of Swin, by name, that are made of something else.

    Raises:
        UserError: names the module.
    """
    for name, layer in layers:
        expect(name, layer, _STAGES)
        expect(f"{name}.downsample", layer.downsample, _MERGINGS)
        for number, block in enumerate(layer.blocks):
            expect(f"{name}.blocks.{number}", block, _BLOCKS)


def window_links(embed: Any, layers: Sequence[Any], shape: Shape) -> Mapping[str, nn.Module]:
    """Of Swin and SwinV2, without a head. Windows and shifts are those that the blocks were made with."""
    grid = windows.patch_grid(embed.proj, shape)
    links: dict[str, nn.Module] = {"patch_embed": windows.TokenMap(embed.proj, embed.norm)}
    for index, layer in enumerate(layers):
        own = layer.downsample
        if not isinstance(own, nn.Identity):
            last = isinstance(own, swin_transformer_v2.PatchMerging)
            links[f"layers.{index}.downsample"] = windows.Merging(own.norm, own.reduction, grid, norm_last=last)
            grid = windows.halved(grid)
        for number, block in enumerate(layer.blocks):
            second = isinstance(block, swin_transformer_v2.SwinTransformerV2Block)
            links[f"layers.{index}.blocks.{number}"] = (second_block if second else _window_block)(block, grid)
    return links


def _window_block(block: Any, grid: windows.Grid) -> windows.WindowBlock:
    own = block.attn
    index = own.relative_position_index.view(own.window_area, own.window_area)
    bias = parts.RelativeBias(own.relative_position_bias_table, index)
    attention = parts.Attention(own.qkv, own.proj, own.num_heads, scale=own.scale, bias=bias)
    return windows.WindowBlock(
        block.norm1,
        attention,
        block.norm2,
        chain_mlp(block.mlp),
        grid=grid,
        window=block.window_size,
        shift=block.shift_size,
        pad_last=True,
    )


def plain_links(model: Any, shape: Shape) -> Mapping[str, nn.Module]:
    """Of a VisionTransformer, without a head."""
    first = parts.tokens(
        model.patch_embed.proj,
        lambda images: model._pos_embed(model.patch_embed(images)),
        shape,
        positions=model.pos_embed is not None,
        norm=model.norm_pre,
    )
    return {"patch_embed": first, **{f"blocks.{number}": _block(one) for number, one in enumerate(model.blocks)}}


def _block(block: Any) -> parts.Block:
    own = block.attn
    attention = parts.Attention(
        own.qkv,
        own.proj,
        own.num_heads,
        scale=own.scale,
        q_norm=own.q_norm,
        k_norm=own.k_norm,
        norm=own.norm,
        gate=getattr(own, "gate", None),
    )
    first, second = (getattr(one, "gamma", None) for one in (block.ls1, block.ls2))
    return parts.Block(block.norm1, attention, block.norm2, chain_mlp(block.mlp), scales=(first, second))
