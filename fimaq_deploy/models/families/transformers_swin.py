"""Hugging Face's Swin and SwinV2: q, k and v apart, rows of tokens whose map is passed along, outputs that are objects.

What is deployed is the logits, else the pooled output, else all tokens. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import Head, MapMean, Rows
from fimaq_deploy.models.families.parts import Attention, Direction, Mlp, RelativeBias, joined
from fimaq_deploy.models.families.source import TransformersSource
from fimaq_deploy.models.families.windows import (
    Grid,
    Merging,
    PostNormWindowBlock,
    TokenMap,
    WindowBlock,
    halved,
    patch_grid,
)

_WITH_CLASSES = "ForImageClassification"
_KINDS = tuple(f"{name}{end}" for name in ("Swin", "Swinv2") for end in ("Model", _WITH_CLASSES))
_LARGEST_SCALE = math.log(100.0)


class TransformersSwin(TransformersSource):
    name = "transformers-swin"
    kinds = tuple(f"transformers {kind}" for kind in _KINDS)
    class_names = _KINDS

    def classes(self, model: Any) -> int:
        return model.config.num_labels if _has_classes(model) else 0

    def check(self, model: Any, what: str = "the model") -> None:
        check_layers(_tower(model))

    def answer(self, model: Any) -> str:
        if _has_classes(model):
            return "logits"
        return "last_hidden_state" if model.pooler is None else "pooler_output"

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        tower = _tower(model)
        pool = Rows() if self.answer(model) == "last_hidden_state" else MapMean()
        last = Head(tower.layernorm, pool, None, getattr(model, "classifier", None))
        return {**chain_links(tower, shape), "head": last}


def check_layers(tower: Any) -> None:
    """Refuse blocks of other classes.

    Raises:
        UserError: names the block.
    """
    for index, layer in enumerate(tower.encoder.layers):
        for number, block in enumerate(layer.blocks):
            if type(block).__name__ not in ("SwinLayer", "Swinv2Layer"):
                expect(f"encoder.layers.{index}.blocks.{number}", block, ())


def chain_links(tower: Any, shape: Shape, *, always_shift: bool = False) -> dict[str, nn.Module]:
    """Without a head. always_shift: also a map that is one window, as backbones do."""
    grid = patch_grid(tower.embeddings.patch_embeddings.projection, shape)
    links: dict[str, nn.Module] = {"patch_embed": _embedding(tower.embeddings, grid, shape)}
    for index, layer in enumerate(tower.encoder.layers):
        for number, block in enumerate(layer.blocks):
            links[f"layers.{index}.blocks.{number}"] = _block(block, grid, always_shift)
        if layer.downsample is not None:
            own, norm_last = layer.downsample, layer.downsample.norm.normalized_shape[0] != 4 * _width(layer)
            links[f"layers.{index + 1}.downsample"] = Merging(own.norm, own.reduction, grid, norm_last=norm_last)
            grid = halved(grid)
    return links


def _has_classes(model: Any) -> bool:
    return type(model).__name__.endswith(_WITH_CLASSES)


def _tower(model: Any) -> Any:
    return next(one for one in (model, *model.children()) if hasattr(one, "embeddings"))


def _width(layer: Any) -> int:
    return int(layer.downsample.reduction.in_features) // 4


def _embedding(embeddings: Any, grid: Grid, shape: Shape) -> TokenMap:
    positions, projection = embeddings.position_embeddings, embeddings.patch_embeddings.projection
    if positions is None:
        return TokenMap(projection, embeddings.norm)
    if positions.shape[1] != grid[0] * grid[1]:
        raise UserError(f"the model takes no images of {shape}: it has positions for {positions.shape[1]} patches")
    return TokenMap(projection, embeddings.norm, positions.view(*grid, -1))


def _block(block: Any, grid: Grid, always_shift: bool) -> WindowBlock:
    return _second(block, grid) if type(block).__name__ == "Swinv2Layer" else _first(block, grid, always_shift)


def _first(block: Any, grid: Grid, always_shift: bool) -> WindowBlock:
    own, relative = block.attention, block.attention.relative_position_bias
    window: Grid = relative.window_size
    if min(grid) < window[0] and not always_shift:
        raise UserError(f"a map of {grid[0]}×{grid[1]} tokens is smaller than the model's windows: take larger images")
    by = 0 if min(grid) == window[0] and not always_shift else int(block.shift_size)
    index = relative.relative_position_index.view(window[0] * window[1], -1)
    bias = RelativeBias(relative.relative_position_bias_table, index)
    attention = Attention(joined(own.q_proj, own.k_proj, own.v_proj), own.o_proj, own.num_attention_heads, bias=bias)
    norms, mlp = (
        (block.layernorm_before, block.layernorm_after),
        Mlp(block.mlp.fc1, block.mlp.activation_fn, block.mlp.fc2),
    )
    return WindowBlock(norms[0], attention, norms[1], mlp, grid=grid, window=window, shift=(by, by))


def _second(block: Any, grid: Grid) -> WindowBlock:
    side, by = block.window_size, block.shift_size
    norms, attention = (block.layernorm_before, block.layernorm_after), _cosine_attention(block.attention)
    mlp = Mlp(block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense)
    return PostNormWindowBlock(norms[0], attention, norms[1], mlp, grid=grid, window=(side, side), shift=(by, by))


@torch.no_grad()
def _cosine_attention(attention: Any) -> Attention:
    own = attention.self
    heads = own.num_attention_heads
    table = 16 * own.continuous_position_bias_mlp(own.relative_coords_table).view(-1, heads).sigmoid()
    return Attention(
        joined(own.query, own.key, own.value),
        attention.output.dense,
        heads,
        scale=own.logit_scale.clamp(max=_LARGEST_SCALE).exp(),
        q_norm=Direction(),
        k_norm=Direction(),
        bias=RelativeBias(table, own.relative_position_index),
    )


FAMILY = TransformersSwin()
