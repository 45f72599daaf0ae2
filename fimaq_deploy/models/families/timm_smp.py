"""The ViT encoder of segmentation-models-pytorch's DPT: a timm model whose blocks' tokens it hands out.

It answers maps and, apart from them, the tokens in front of their patches. Here both are one output a block, tokens
(N, L, C) with those in front, and are parted again where the encoder stands in its model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.maps import Maps
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.timm import embedded_shape
from fimaq_deploy.models.families.timmlinks import plain_links
from fimaq_deploy.models.families.windows import Grid, patch_grid


class SmpVit(Maps):
    name = "smp-vit"
    kinds = ("segmentation_models_pytorch TimmViTEncoder",)

    def claims(self, model: object) -> bool:
        own = type(model)
        return own.__module__.startswith("segmentation_models_pytorch.") and own.__name__ == "TimmViTEncoder"

    def image_shape(self, model: Any) -> Shape:
        return embedded_shape(model.model.patch_embed)

    def check(self, model: Any, what: str = "the model") -> None:
        body = model.model
        family = family_of(body, f"what {what} takes maps of")
        if family.name != "vit":
            raise UserError(f"{what} takes maps of a {type(body).__name__}: expected a plain VisionTransformer of timm")
        family.check(body, what)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        return plain_links(model.model, shape)

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid = patch_grid(model.model.patch_embed.proj, shape)
        return {f"blocks.{index}": Map("NLC", grid, None, None) for index in _indices(model)}

    def outputs(self, model: Any) -> tuple[str, ...]:
        return tuple(f"blocks_{index}" for index in _indices(model))

    def tensors(self, model: Any, answer: Any) -> Sequence[Tensor]:
        """Maps (N, C, rows, columns) with tokens (N, P, C) or None, to (N, P + rows x columns, C)."""
        if isinstance(answer, Mapping):
            return list(answer.values())
        rows = [found.flatten(2).transpose(1, 2) for found in answer[0]]
        return [
            one if front is None else torch.cat([front, one], 1) for one, front in zip(rows, answer[1], strict=True)
        ]

    def reply(self, model: Any, tensors: Sequence[Tensor]) -> Any:
        front = model.model.num_prefix_tokens
        grid = self._grid(model, tensors[0].shape[1] - front)
        maps = [one[:, front:].transpose(1, 2).unflatten(2, grid) for one in tensors]
        return maps, [one[:, :front] if front else None for one in tensors]

    def _grid(self, model: Any, patches: int) -> Grid:
        """Of images of the model's size, or of squares where it takes any size."""
        rows, columns = patch_grid(model.model.patch_embed.proj, self.image_shape(model))
        side = math.isqrt(patches)
        if patches not in (rows * columns, side * side):
            told = f"{patches} patches are neither {rows} x {columns} nor a square"
            raise UserError(f"{told}: call set_input_size of the encoder's model with the size of your images first")
        return (rows, columns) if patches == rows * columns else (side, side)


def _indices(model: Any) -> list[int]:
    """The blocks whose tokens are answered, which timm answers in their own order."""
    count = len(model.model.blocks)
    return sorted({index % count for index in model._output_indices})


FAMILY = SmpVit()
