"""Hugging Face's backbones, which detectors, segmenters and depth estimators are built on: Swin, SwinV2 and DINOv2.

They answer feature maps by the names of their stages. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.feature_maps import FeatureMaps
from fimaq_deploy.models.families.parts import tokens
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.transformers_swin import chain_links, check_layers
from fimaq_deploy.models.families.transformers_vit import chain_blocks, check_blocks
from fimaq_deploy.models.families.windows import Grid, patch_grid

_WINDOWED = ("SwinBackbone", "Swinv2Backbone")
_PLAIN = ("Dinov2Backbone", "Dinov2WithRegistersBackbone")
_KINDS = (*_WINDOWED, *_PLAIN)


class TransformersBackbone(FeatureMaps):
    name = "transformers-backbone"
    kinds = tuple(f"transformers {kind}" for kind in _KINDS)
    class_names = _KINDS

    def check(self, model: Any, what: str = "the model") -> None:
        if _is_windowed(model):
            check_layers(_tower(model))
        else:
            check_blocks(model)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        tower = _tower(model)
        if _is_windowed(model):
            return chain_links(tower, shape, always_shift=type(model).__name__ == "SwinBackbone")
        proj = tower.embeddings.patch_embeddings.projection
        return {"patch_embed": tokens(proj, tower.embeddings, shape), **chain_blocks(model)}

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid = patch_grid(_tower(model).embeddings.patch_embeddings.projection, shape)
        make = _window_map if _is_windowed(model) else _token_map
        return {_link_of(stage, model, links): make(stage, model, grid) for stage in self.outputs(model)}


def _is_windowed(model: Any) -> bool:
    return type(model).__name__ in _WINDOWED


def _tower(model: Any) -> Any:
    return next(one for one in (model, *model.children()) if hasattr(one, "embeddings"))


def _link_of(stage: str, model: Any, links: Mapping[str, nn.Module]) -> str:
    """The link that a stage's map is taken behind: stage n is what n layers made, "stem" what none did."""
    number = list(model.stage_names).index(stage)
    if not number:
        return "patch_embed"
    if not _is_windowed(model):
        return f"blocks.{number - 1}"
    return next(name for name in reversed(list(links)) if name.startswith(f"layers.{number - 1}.blocks."))


def _window_map(stage: str, model: Any, grid: Grid) -> Map:
    norms = getattr(model, "hidden_states_norms", {})
    return Map("NCHW", grid, copy.deepcopy(norms[stage]) if stage in norms else None)


def _token_map(stage: str, model: Any, grid: Grid) -> Map:
    norm = copy.deepcopy(model.layernorm) if model.config.apply_layernorm else None
    if not model.config.reshape_hidden_states:
        return Map("NLC", grid, norm, None)
    return Map("NCHW", grid, norm, 1 + getattr(model.config, "num_register_tokens", 0))


FAMILY = TransformersBackbone()
