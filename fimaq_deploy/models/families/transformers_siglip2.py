"""Hugging Face's SigLIP 2 of any aspect ratio (NaFlex), which reads patches: deployed for images of one size.

Its projection is a Linear over the pixels of a patch, which is a convolution, and its positions are resampled for the
grid of patches as it does itself. Without a size asked for, images are square, with as many patches as positions.
Checkpoints of SigLIP 2 of one size are models of `siglip`. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.head import Head, Kept
from fimaq_deploy.models.families.parts import Tokens
from fimaq_deploy.models.families.source import Answering, TransformersSource
from fimaq_deploy.models.families.transformers_vit import chain_blocks, check_blocks


class OfImages(nn.Module):
    """Images (N, C, H, W) as the patches that the model takes, row by row, each with its pixels channels last."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        size = self.model.config.patch_size
        rows, columns = images.shape[2] // size, images.shape[3] // size
        split = images.unflatten(2, (rows, size)).unflatten(4, (columns, size))
        patches = split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=images.device)
        shapes = torch.tensor([[rows, columns]] * len(images), device=images.device)
        return self.model(patches, pixel_attention_mask=mask, spatial_shapes=shapes)


class TransformersSiglip2(TransformersSource):
    name = "transformers-siglip2"
    kinds = ("transformers Siglip2VisionModel",)
    class_names = ("Siglip2VisionModel",)

    def classes(self, model: Any) -> int:
        return 0

    def check(self, model: Any, what: str = "the model") -> None:
        check_blocks(model)

    def image_shape(self, model: Any) -> Shape:
        config = model.config
        side = model.embeddings.position_embedding_size * config.patch_size
        size = getattr(config, "image_size", None) or side
        height, width = (size, size) if isinstance(size, int) else size
        return config.num_channels, height, width

    def answer(self, model: Any) -> str:
        return "pooler_output" if model.use_head else "last_hidden_state"

    def original(self, model: nn.Module) -> nn.Module:
        return Answering(OfImages(model), self.answer(model)).train(model.training)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        head = Head(model.post_layernorm, Kept(model.head) if model.use_head else None)
        return {"patch_embed": _tokens(model, shape), **chain_blocks(model), "head": head}


@torch.no_grad()
def _tokens(model: Any, shape: Shape) -> Tokens:
    """The projection as a convolution, and the positions of this grid of patches."""
    own, patch = model.embeddings, model.config.patch_size
    if shape[0] != model.config.num_channels or shape[1] % patch or shape[2] % patch:
        raise UserError(
            f"the model takes no images of {shape}: expected {model.config.num_channels} channels and sides that are "
            f"multiples of {patch}"
        )
    linear, grid = own.patch_embedding, (shape[1] // patch, shape[2] // patch)
    proj = nn.Conv2d(shape[0], linear.out_features, patch, patch, device=linear.weight.device)
    proj.weight.copy_(linear.weight.unflatten(1, (patch, patch, shape[0])).permute(0, 3, 1, 2))
    proj.bias = linear.bias
    table = own.position_embedding.weight.unflatten(0, (own.position_embedding_size, -1))
    count = grid[0] * grid[1]
    positions = own.resize_positional_embeddings(table, torch.tensor([grid], device=table.device), max_length=count)
    return Tokens(proj.requires_grad_(False), positions, count)


FAMILY = TransformersSiglip2()
