"""timm's SwinTransformerV2: attention by cosines, norms behind what is written, a bias that a small network computes.

That network reads positions alone, so its answer is a table. Every head has a scale of its own for its scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import swin_transformer_v2
from timm.models.swin_transformer_v2 import (
    PatchMerging,
    SwinTransformerV2,
    SwinTransformerV2Block,
    WindowAttention,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import Head, MapMean
from fimaq_deploy.models.families.parts import Attention, Direction, PostNormBlock, RelativeBias, with_bias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.timm import chain_mlp, embedded_shape, expect_plain_stem

_LARGEST_SCALE = math.log(100.0)
_HIDDEN = -1e4  # as timm_swin's: a hidden token weighs nothing


class WindowBlock(PostNormBlock):
    """A block whose attention sees one window of (batch, rows, columns, channels) at a time."""

    mask: Tensor | None

    def __init__(self, block: Any, attention: Attention) -> None:
        super().__init__(block.norm1, attention, block.norm2, chain_mlp(block.mlp))
        self.window, self.shift, mask = block.window_size, block.shift_size, block.attn_mask
        hidden = None if mask is None else mask.masked_fill(mask < 0, _HIDDEN).unsqueeze(1)
        self.register_buffer("mask", hidden, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self._attended(x))
        return x + self.norm2(self.mlp(x))

    def _attended(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        down, right = self.shift
        shifted = torch.roll(x, (-down, -right), (1, 2)) if any(self.shift) else x
        below, beside = (-size % window for size, window in zip((height, width), self.window, strict=True))
        padded = nn.functional.pad(shifted, (0, 0, 0, beside, 0, below)) if below or beside else shifted
        windows = window_partition(padded, self.window).view(-1, self.window[0] * self.window[1], channels)
        y = self.attn(windows, self.mask).view(-1, *self.window, channels)
        y = window_reverse(y, self.window, (height + below, width + beside))[:, :height, :width]
        return torch.roll(y, (down, right), (1, 2)) if any(self.shift) else y


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
                links[f"layers.{index}.blocks.{number}"] = WindowBlock(block, _attention(block.attn))
        return {**links, "head": Head(model.norm, MapMean(), None, model.head.fc)}

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return swin_transformer_v2.checkpoint_filter_fn(dict(state), model)


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
