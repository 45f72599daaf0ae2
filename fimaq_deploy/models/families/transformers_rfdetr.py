"""RF-DETR's encoder in Hugging Face: a DINOv2 whose tokens are in windows, each with a class token of its own.

Most blocks attend inside their windows, some across all of them. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.feature_maps import FeatureMaps
from fimaq_deploy.models.families.parts import Block
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.transformers_vit import chain_blocks, check_blocks
from fimaq_deploy.models.families.windows import Grid, patch_grid


class RfDetr(FeatureMaps):
    name = "transformers-rfdetr"
    kinds = ("transformers RfDetrDinov2Backbone",)
    class_names = ("RfDetrDinov2Backbone",)

    def check(self, model: Any, what: str = "the model") -> None:
        check_blocks(model)
        if not model.config.reshape_hidden_states:
            raise UserError(f"{what} answers rows of windows: expected maps (reshape_hidden_states)")

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        side, grid = model.config.num_windows, _grid(model, shape)
        blocks = zip(chain_blocks(model).items(), model.encoder.layer, strict=True)
        wide = {name: Windowed(block, side**2, layer.global_attention) for (name, block), layer in blocks}
        return {"patch_embed": WindowTokens(model.embeddings, side, grid, shape), **wide}

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        side, grid = model.config.num_windows, _grid(model, shape)
        norms = (copy.deepcopy(model.layernorm) if model.config.apply_layernorm else None for _ in links)
        return {_link_of(model, stage): WindowMap(side, grid, next(norms)) for stage in self.outputs(model)}


def _grid(model: Any, shape: Shape) -> Grid:
    grid, side = patch_grid(model.embeddings.patch_embeddings.projection, shape), model.config.num_windows
    if grid[0] != grid[1] or grid[0] % side:
        raise UserError(f"the model takes no images of {shape}: expected square ones of {side} whole windows a side")
    return grid


def _link_of(model: Any, stage: str) -> str:
    number = list(model.stage_names).index(stage)
    return f"blocks.{number - 1}" if number else "patch_embed"


class WindowTokens(nn.Module):
    """Images (N, C, H, W) to windows of tokens (N, windows, 1 + patches, channels)."""

    @torch.no_grad()
    def __init__(self, embeddings: Any, side: int, grid: Grid, shape: Shape) -> None:
        super().__init__()
        self.proj, self.side, self.grid = embeddings.patch_embeddings.projection, side, grid
        handle = self.proj.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        try:
            constants = embeddings(self.proj.weight.new_zeros(1, *shape))
        finally:
            handle.remove()
        self.first = nn.Parameter(constants[None, :, :1].clone(), False)
        self.position = nn.Parameter(constants[None, :, 1:].clone(), False)

    def forward(self, images: Tensor) -> Tensor:
        (rows, columns), side = self.grid, self.side
        x = self.proj(images).permute(0, 2, 3, 1)
        x = x.reshape(-1, side, rows // side, side, columns // side, x.shape[-1]).transpose(2, 3)
        x = x.reshape(-1, side**2, rows * columns // side**2, x.shape[-1]) + self.position
        return torch.cat((self.first.expand(x.shape[0], -1, -1, -1), x), 2)


class Windowed(Block):
    """A block of windows (N, windows, tokens, channels). across: whether it attends across all of them."""

    def __init__(self, block: Any, windows: int, across: bool) -> None:
        nn.Module.__init__(self)
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.ls1, self.ls2, self.windows, self.across = block.ls1, block.ls2, windows, across

    def forward(self, x: Tensor) -> Tensor:
        tokens, channels = x.shape[-2:]
        together = tokens * self.windows if self.across else tokens
        y = self.attn(self.norm1(x).reshape(-1, together, channels))
        x = x + self.ls1(y.reshape(-1, self.windows, tokens, channels))
        return x + self.ls2(self.mlp(self.norm2(x)))


class WindowMap(Map):
    """Windows of tokens as a map (N, channels, rows, columns)."""

    def __init__(self, side: int, grid: Grid, norm: nn.Module | None) -> None:
        super().__init__("NCHW", grid, norm)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        (rows, columns), side = self.grid, self.side
        x = self.norm(x)[:, :, 1:]
        x = x.reshape(-1, side, side, rows // side, columns // side, x.shape[-1]).transpose(2, 3)
        return x.reshape(-1, rows, columns, x.shape[-1]).permute(0, 3, 1, 2)


FAMILY = RfDetr()
