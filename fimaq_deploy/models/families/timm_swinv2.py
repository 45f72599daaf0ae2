"""timm's SwinTransformerV2: attention by cosines, norms behind what is written, a bias that a small network computes.

That network reads positions alone, so its answer is a table. Every head has a scale of its own for its scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import swin_transformer_v2
from timm.models.swin_transformer_v2 import PatchMerging, SwinTransformerV2, SwinTransformerV2Block, WindowAttention
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import Head, MapMean
from fimaq_deploy.models.families.parts import Attention, Direction, RelativeBias, with_bias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_mlp, embedded_shape, expect_plain_stem
from fimaq_deploy.models.families.windows import Grid, PostNormWindowBlock

_LARGEST_SCALE = math.log(100.0)


class TimmSwinV2(Source):
    name = "swinv2"
    kinds = ("timm SwinTransformerV2",)

    def claims(self, model: object) -> bool:
        return isinstance(model, SwinTransformerV2)

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        if model.global_pool != "avg":
            raise UserError(f"module 'head': global_pool '{model.global_pool}' is not understood, expected avg")
        for index, layer in enumerate(model.layers):
            expect(f"layers.{index}.downsample", layer.downsample, (PatchMerging, nn.Identity))
            for number, block in enumerate(layer.blocks):
                name = f"layers.{index}.blocks.{number}"
                expect(name, block, (SwinTransformerV2Block,))
                expect(f"{name}.attn", block.attn, (WindowAttention,))
                if block.dynamic_mask:
                    raise UserError(f"module '{name}': images of any size are not understood: create it with img_size")

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        if shape != self.image_shape(model):
            raise UserError(f"the model takes no images of {shape}: expected {self.image_shape(model)}")
        links: dict[str, nn.Module] = {"patch_embed": model.patch_embed}
        for index, layer in enumerate(model.layers):
            if not isinstance(layer.downsample, nn.Identity):
                links[f"layers.{index}.downsample"] = layer.downsample
            for number, block in enumerate(layer.blocks):
                links[f"layers.{index}.blocks.{number}"] = chain_block(block, block.input_resolution)
        return {**links, "head": Head(model.norm, MapMean(), None, model.head.fc)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return swin_transformer_v2.checkpoint_filter_fn(dict(state), model)


def chain_block(block: Any, grid: Grid) -> PostNormWindowBlock:
    """A block of SwinV2 for a map of this size, with the windows and shifts that it was made with."""
    attention, mlp = _attention(block.attn), chain_mlp(block.mlp)
    window, shift = block.window_size, block.shift_size
    return PostNormWindowBlock(
        block.norm1, attention, block.norm2, mlp, grid=grid, window=window, shift=shift, pad_last=True
    )


@torch.no_grad()
def _attention(own: Any) -> Attention:
    table = 16 * own.cpb_mlp(own.relative_coords_table).view(-1, own.num_heads).sigmoid()
    return Attention(
        with_bias(own.qkv, own.q_bias, own.k_bias, own.v_bias),
        own.proj,
        own.num_heads,
        scale=own.logit_scale.clamp(max=_LARGEST_SCALE).exp(),
        q_norm=Direction(),
        k_norm=Direction(),
        bias=RelativeBias(table, own.relative_position_index),
    )


FAMILY = TimmSwinV2()
