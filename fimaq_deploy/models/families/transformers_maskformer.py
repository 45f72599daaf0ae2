"""The Swin that Hugging Face's MaskFormer brings: blocks as SwinV1 has them, in classes of their own.

A norm for each map stands behind its stage. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.feature_maps import FeatureMaps
from fimaq_deploy.models.families.parts import Attention, Mlp, RelativeBias, joined
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.windows import Grid, Merging, TokenMap, WindowBlock, halved, patch_grid


class MaskFormerSwin(FeatureMaps):
    name = "transformers-maskformer"
    kinds = ("transformers MaskFormerSwinBackbone",)
    class_names = ("MaskFormerSwinBackbone",)

    def check(self, model: Any, what: str = "the model") -> None:
        if model.model.embeddings.position_embeddings is not None:
            raise UserError(f"{what} adds absolute positions (use_absolute_embeddings), which is not understood")
        for index, layer in enumerate(model.model.encoder.layers):
            for number, block in enumerate(layer.blocks):
                if type(block).__name__ != "MaskFormerSwinLayer":
                    expect(f"model.encoder.layers.{index}.blocks.{number}", block, ())

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        embeddings = model.model.embeddings
        proj = embeddings.patch_embeddings.projection
        grid = patch_grid(proj, shape)
        links: dict[str, nn.Module] = {"patch_embed": TokenMap(proj, embeddings.norm)}
        for index, layer in enumerate(model.model.encoder.layers):
            for number, block in enumerate(layer.blocks):
                links[f"layers.{index}.blocks.{number}"] = _block(block, grid)
            if layer.downsample is not None:
                own = layer.downsample
                links[f"layers.{index + 1}.downsample"] = Merging(own.norm, own.reduction, grid)
                grid = halved(grid)
        return links

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid, found = patch_grid(model.model.embeddings.patch_embeddings.projection, shape), {}
        for stage in self.outputs(model):
            index = list(model.stage_names).index(stage) - 1  # the first name is the stem's, which is never a map
            link = f"layers.{index}.blocks.{len(model.model.encoder.layers[index].blocks) - 1}"
            found[link] = Map("NCHW", grid, copy.deepcopy(model.hidden_states_norms[index]))
        return found


def _block(block: Any, grid: Grid) -> WindowBlock:
    own, side, by = block.attention.self, block.window_size, block.shift_size
    attention = Attention(
        joined(own.query, own.key, own.value),
        block.attention.output.dense,
        own.num_attention_heads,
        bias=RelativeBias(own.relative_position_bias_table, own.relative_position_index),
    )
    mlp = Mlp(block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense)
    norms = block.layernorm_before, block.layernorm_after
    return WindowBlock(norms[0], attention, norms[1], mlp, grid=grid, window=(side, side), shift=(by, by))


FAMILY = MaskFormerSwin()
