"""timm's `features_only` models: encoders that answer maps of several blocks, as a list or by number.

Plain transformers are wrapped whole; Swin and SwinV2 are taken apart, so that no more than their layers is left. Their
maps have channels last, those of the others channels first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from timm.models._features import FeatureDictNet, FeatureGetterNet, FeatureListNet, feature_take_indices
from timm.models.swin_transformer import SwinTransformer, SwinTransformerStage
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Stage
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of, find_family
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.maps import Maps
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.tapped import Layout, Map
from fimaq_deploy.models.families.timm import embedded_shape, expect_plain_stem
from fimaq_deploy.models.families.timmlinks import check_windows, plain_links, window_links
from fimaq_deploy.models.families.windows import patch_grid

_WINDOWED = (SwinTransformer, SwinTransformerV2)
_LAYERS = (SwinTransformerStage, SwinTransformerV2Stage)


class TimmFeatures(Maps):
    name = "features"
    kinds = ("timm features_only model",)

    def claims(self, model: object) -> bool:
        if isinstance(model, FeatureGetterNet):
            return find_family(model.model) is not None
        return isinstance(model, FeatureDictNet) and any(isinstance(one, _LAYERS) for one in model.children())

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(_body(model).patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        body = _body(model)
        if _is_windowed(model):
            expect_plain_stem(body, what)
            check_windows([(name, layer) for name, layer in _layers(model).items()])
            return
        known = isinstance(body, VisionTransformer) or isinstance(find_family(body), Source)
        if not known or not hasattr(body, "blocks"):
            raise UserError(f"{what} answers maps of a {type(body).__name__}, whose blocks are not handed out here")
        family_of(body).check(body, what)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        body = _body(model)
        if _is_windowed(model):
            return window_links(body.patch_embed, list(_layers(model).values()), shape)
        if isinstance(body, VisionTransformer):
            return plain_links(body, shape)
        family: Any = find_family(body)
        return {name: link for name, link in family.links(body, shape).items() if name != "head"}

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid, last = patch_grid(_body(model).patch_embed.proj, shape), max(_indices(model))
        if not _is_windowed(model):
            body, layout = _body(model), _layout(model)
            norm, prefix = body.norm if model.norm else None, body.num_prefix_tokens
            return {f"blocks.{index}": Map(layout, grid, copy.deepcopy(norm), prefix) for index in _indices(model)}
        wrapped = isinstance(model, FeatureGetterNet)
        final = model.model.norm if wrapped and model.norm and last == len(_layers(model)) - 1 else None
        norms = {last: copy.deepcopy(final)}
        return {_end_of(index, links): Map(_layout(model), grid, norms.get(index)) for index in _indices(model)}

    def reply(self, model: Any, tensors: Sequence[Tensor]) -> Any:
        if isinstance(model, FeatureDictNet) and not isinstance(model, FeatureListNet):
            return dict(zip(model.return_layers.values(), tensors, strict=True))
        return list(tensors)

    def outputs(self, model: Any) -> tuple[str, ...]:
        part = "layers" if _is_windowed(model) else "blocks"
        return tuple(f"{part}_{index}" for index in _indices(model))


def _body(model: Any) -> Any:
    return model.model if isinstance(model, FeatureGetterNet) else model


def _layout(model: Any) -> Layout:
    if not isinstance(model, FeatureGetterNet):
        return "NHWC"
    return "NLC" if model.output_fmt == "NLC" else "NCHW"


def _is_windowed(model: Any) -> bool:
    return not isinstance(model, FeatureGetterNet) or isinstance(model.model, _WINDOWED)


def _layers(model: Any) -> dict[str, Any]:
    """The stages of Swin by the name that they have there."""
    if isinstance(model, FeatureGetterNet):
        body: Any = model.model
        return {f"layers.{index}": layer for index, layer in enumerate(body.layers)}
    return {name: layer for name, layer in model.items() if isinstance(layer, _LAYERS)}


def _indices(model: Any) -> list[int]:
    """The numbers of the blocks or layers whose maps are answered, in the order in which they are."""
    if isinstance(model, FeatureGetterNet):
        body, asked = _body(model), model.out_indices
        count = len(body.layers if _is_windowed(model) else body.blocks)
        return sorted(set(feature_take_indices(count, asked if isinstance(asked, int) else list(asked))[0]))
    return [index for index, name in enumerate(_layers(model)) if name in model.return_layers]


def _end_of(index: int, links: Mapping[str, nn.Module]) -> str:
    """The last link of a layer."""
    return next(name for name in reversed(list(links)) if name.startswith(f"layers.{index}.blocks."))


FAMILY = TimmFeatures()
