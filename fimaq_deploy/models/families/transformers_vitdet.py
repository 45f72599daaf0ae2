"""Hugging Face's ViTDet: a plain transformer whose blocks attend in windows, but for some that see the whole map.

Scores get a bias by relative position that is a product with the queries, for rows and for columns. Modules have the
names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.feature_maps import FeatureMaps
from fimaq_deploy.models.families.parts import Attention, Mlp
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.windows import Grid, TokenMap, WindowBlock, patch_grid


class VitDet(FeatureMaps):
    name = "transformers-vitdet"
    kinds = ("transformers VitDetBackbone",)
    class_names = ("VitDetBackbone",)

    def check(self, model: Any, what: str = "the model") -> None:
        for number, layer in enumerate(model.encoder.layer):
            if layer.use_residual_block:
                raise UserError(
                    f"module 'encoder.layer.{number}.residual': convolutions between blocks are not understood: "
                    "expected a ViTDet without them (residual_block_indices)"
                )

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        grid = patch_grid(model.embeddings.projection, shape)
        blocks = {f"blocks.{number}": _block(layer, grid) for number, layer in enumerate(model.encoder.layer)}
        return {"patch_embed": _embedding(model.embeddings, grid), **blocks}

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid = patch_grid(model.embeddings.projection, shape)
        numbers = {stage: number for number, stage in enumerate(model.stage_names)}
        return {_link(numbers[stage]): Map("NCHW", grid) for stage in self.outputs(model)}


class RelativeToQueries(nn.Module):
    """What relative positions add to scores: (batch, heads, tokens, tokens), of queries (batch, heads, tokens, size).

    rows, columns: (from, to, size), the vector of each pair of rows and of columns.
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(one.transpose(1, 2).clone(), False) for one in (rows, columns))

    def forward(self, q: Tensor) -> Tensor:
        down, right = len(self.rows), len(self.columns)
        places = q.unflatten(2, (down, right))
        by_row = (places @ self.rows).unsqueeze(-1)
        by_column = (places.transpose(2, 3) @ self.columns).transpose(2, 3).unsqueeze(-2)
        return (by_row + by_column).flatten(4, 5).flatten(2, 3)


class PlacedAttention(Attention):
    """Attention with that. Queries keep their numbers, which the bias reads."""

    def __init__(self, own: Any, relative: RelativeToQueries | None) -> None:
        super().__init__(own.qkv, own.proj, own.num_heads)
        self.relative = relative

    @property
    def plain_scores(self) -> bool:
        return self.relative is None

    def biased(self, scores: Tensor, bias: Tensor) -> Tensor:
        return scores + bias

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        return self.proj(self.attend(q, k, v, None if self.relative is None else self.relative(q)))


@torch.no_grad()
def _embedding(embeddings: Any, grid: Grid) -> TokenMap:
    positions = None
    if embeddings.position_embeddings is not None:
        positions = embeddings.get_absolute_positions(embeddings.position_embeddings, True, *grid)[0]
    return TokenMap(embeddings.projection, None, positions)


def _block(layer: Any, grid: Grid) -> WindowBlock:
    window = (layer.window_size, layer.window_size) if layer.window_size else grid
    own, mlp = layer.attention, Mlp(layer.mlp.fc1, layer.mlp.act, layer.mlp.fc2)
    relative = None
    if own.use_relative_position_embeddings:
        relative = RelativeToQueries(_between(own.rel_pos_h, window[0]), _between(own.rel_pos_w, window[1]))
    return WindowBlock(layer.norm1, PlacedAttention(own, relative), layer.norm2, mlp, grid=grid, window=window)


@torch.no_grad()
def _between(table: Tensor, side: int) -> Tensor:
    """The vector of each pair of places (side, side, size), of a table (distances, size) that is resampled to fit."""
    distances = 2 * side - 1
    if len(table) != distances:
        table = nn.functional.interpolate(table.T[None], size=distances, mode="linear")[0].T
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]


def _link(number: int) -> str:
    """The one behind which a stage's map is taken: the first is of the embedding."""
    return f"blocks.{number - 1}" if number else "patch_embed"


FAMILY = VitDet()
