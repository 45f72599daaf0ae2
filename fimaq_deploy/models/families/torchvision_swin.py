"""torchvision's SwinTransformer, v1 and v2: everything that a module of it does is one function of its weights.

Its models take any size and say none. What is deployed is `model.image_size` where the user has set it, else the size
whose last map is one window: 224 of v1 and 256 of v2, for which torchvision's own weights were trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import Head, MapMean
from fimaq_deploy.models.families.parts import Attention, Direction, Mlp, RelativeBias, with_bias
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.windows import (
    Grid,
    Merging,
    PostNormWindowBlock,
    TokenMap,
    WindowBlock,
    halved,
    patch_grid,
)

_LARGEST_SCALE = math.log(100.0)


class TorchvisionSwin(Source):
    name = "torchvision-swin"
    kinds = ("torchvision SwinTransformer",)

    def claims(self, model: object) -> bool:
        return isinstance(model, SwinTransformer)

    def image_shape(self, model: Any) -> Shape:
        proj = model.features[0][0]
        asked = getattr(model, "image_size", None)
        if asked is not None:
            height, width = (asked, asked) if isinstance(asked, int) else asked
            return proj.in_channels, height, width
        merged = 2 ** sum(isinstance(part, PatchMerging | PatchMergingV2) for part in model.features)
        window = model.features[1][0].attn.window_size
        height, width = (side * merged * patch for side, patch in zip(window, proj.kernel_size, strict=True))
        return proj.in_channels, height, width

    def classes(self, model: Any) -> int:
        return model.head.out_features if isinstance(model.head, nn.Linear) else 0

    def check(self, model: Any, what: str = "the model") -> None:
        for index, part in enumerate(list(model.features)[1:], 1):
            if not isinstance(part, nn.Sequential):
                expect(f"features.{index}", part, (PatchMerging, PatchMergingV2))
                continue
            for number, block in enumerate(part):
                name = f"features.{index}.{number}"
                expect(name, block, (SwinTransformerBlock, SwinTransformerBlockV2))
                expect(f"{name}.attn", block.attn, (ShiftedWindowAttention, ShiftedWindowAttentionV2))

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        embedding, *rest = model.features
        grid, index = patch_grid(embedding[0], shape), 0
        links: dict[str, nn.Module] = {"patch_embed": TokenMap(embedding[0], embedding[2])}
        for part in rest:
            if isinstance(part, nn.Sequential):
                for number, block in enumerate(part):
                    links[f"layers.{index}.blocks.{number}"] = _block(block, grid)
                continue
            index, last = index + 1, isinstance(part, PatchMergingV2)
            links[f"layers.{index}.downsample"] = Merging(part.norm, part.reduction, grid, norm_last=last)
            grid = halved(grid)
        return {**links, "head": Head(model.norm, MapMean(), None, model.head)}


def _block(block: Any, grid: Grid) -> WindowBlock:
    kind = PostNormWindowBlock if isinstance(block, SwinTransformerBlockV2) else WindowBlock
    own, window = block.attn, (block.attn.window_size[0], block.attn.window_size[1])
    # A side that is one window has no neighbours to shift from.
    down, right = (by if size > side else 0 for by, size, side in zip(own.shift_size, grid, window, strict=True))
    mlp = Mlp(block.mlp[0], block.mlp[1], block.mlp[3])
    return kind(block.norm1, _attention(own), block.norm2, mlp, grid=grid, window=window, shift=(down, right))


@torch.no_grad()
def _attention(own: Any) -> Attention:
    heads, area = own.num_heads, own.window_size[0] * own.window_size[1]
    index = own.relative_position_index.view(area, area)
    if not isinstance(own, ShiftedWindowAttentionV2):
        return Attention(own.qkv, own.proj, heads, bias=RelativeBias(own.relative_position_bias_table, index))
    table = 16 * own.cpb_mlp(own.relative_coords_table).view(-1, heads).sigmoid()
    return Attention(
        _without_key_bias(own.qkv),
        own.proj,
        heads,
        scale=own.logit_scale.clamp(max=_LARGEST_SCALE).exp(),
        q_norm=Direction(),
        k_norm=Direction(),
        bias=RelativeBias(table, index),
    )


def _without_key_bias(qkv: nn.Linear) -> nn.Linear:
    """v2 computes with a bias of zero for k, whatever is stored."""
    if qkv.bias is None:
        return qkv
    q, k, v = qkv.bias.chunk(3)
    drop: Tensor = torch.cat((torch.zeros_like(q), -k, torch.zeros_like(v)))
    return with_bias(qkv, drop)


FAMILY = TorchvisionSwin()
