"""timm's SwinTransformerV2Cr: SwinV2 with a bias in logarithms of places, and norms between blocks.

A small network computes the bias from places alone, so that its answer is a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.pos_embed_rel import gen_relative_position_index
from timm.models import swin_transformer_v2_cr
from timm.models.swin_transformer_v2_cr import (
    PatchMerging,
    SwinTransformerV2Cr,
    SwinTransformerV2CrBlock,
    WindowMultiHeadAttention,
)
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import Head, MapMean
from fimaq_deploy.models.families.parts import Attention, Direction, RelativeBias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_mlp, embedded_shape
from fimaq_deploy.models.families.windows import Grid, Merging, PostNormWindowBlock, TokenMap, halved, patch_grid

_LARGEST_SCALE = math.log(100.0)


class NormedBlock(PostNormWindowBlock):
    """A block with one more norm, of the stream itself."""

    def __init__(self, *parts: Any, norm3: nn.Module, **sizes: Any) -> None:
        super().__init__(*parts, **sizes)
        self.norm3 = norm3

    def forward(self, x: Tensor) -> Tensor:
        return self.norm3(super().forward(x))


class TimmSwinV2Cr(Source):
    name = "swinv2cr"
    kinds = ("timm SwinTransformerV2Cr",)

    def claims(self, model: object) -> bool:
        return isinstance(model, SwinTransformerV2Cr)

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        pooling = model.head.global_pool.pool_type
        if pooling != "avg":
            raise UserError(f"module 'head': global_pool '{pooling}' is not understood, expected avg")
        for index, stage in enumerate(model.stages):
            expect(f"stages.{index}.downsample", stage.downsample, (PatchMerging, nn.Identity))
            for number, block in enumerate(stage.blocks):
                name = f"stages.{index}.blocks.{number}"
                expect(name, block, (SwinTransformerV2CrBlock,))
                expect(f"{name}.attn", block.attn, (WindowMultiHeadAttention,))
                if block.dynamic_mask:
                    raise UserError(f"module '{name}': images of any size are not understood: create it with img_size")

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        if shape != self.image_shape(model):
            raise UserError(f"the model takes no images of {shape}: expected {self.image_shape(model)}")
        own = model.patch_embed
        grid = patch_grid(own.proj, shape)
        links: dict[str, nn.Module] = {"patch_embed": TokenMap(own.proj, own.norm)}
        for index, stage in enumerate(model.stages):
            if isinstance(stage.downsample, PatchMerging):
                links[f"layers.{index}.downsample"] = Merging(stage.downsample.norm, stage.downsample.reduction, grid)
                grid = halved(grid)
            for number, block in enumerate(stage.blocks):
                links[f"layers.{index}.blocks.{number}"] = _block(block, grid)
        return {**links, "head": Head(None, MapMean(), None, model.head.fc)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return swin_transformer_v2_cr.checkpoint_filter_fn(dict(state), model)


def _block(block: Any, grid: Grid) -> NormedBlock:
    sizes: dict[str, Any] = {"grid": grid, "window": block.window_size, "shift": block.shift_size, "pad_last": True}
    return NormedBlock(
        block.norm1, _attention(block.attn), block.norm2, chain_mlp(block.mlp), norm3=block.norm3, **sizes
    )


@torch.no_grad()
def _attention(own: Any) -> Attention:
    area = own.window_size[0] * own.window_size[1]
    bias = own.meta_mlp(own.relative_coordinates_log)
    index = gen_relative_position_index(own.window_size).view(area, area).to(bias.device)
    table = bias.new_zeros(int(index.max()) + 1, own.num_heads)
    table[index.flatten()] = bias
    return Attention(
        own.qkv,
        own.proj,
        own.num_heads,
        scale=own.logit_scale.view(-1, 1, 1).clamp(max=_LARGEST_SCALE).exp(),
        q_norm=Direction(),
        k_norm=Direction(),
        bias=RelativeBias(table, index),
    )


FAMILY = TimmSwinV2Cr()
