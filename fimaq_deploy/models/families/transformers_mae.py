"""Hugging Face's ViTMAE encoder, which hides patches and shuffles the rest at random: deployed with all, in order.

Its answer is every token, the class token first. `config.mask_ratio` is for its training: nothing is hidden here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.head import Head
from fimaq_deploy.models.families.parts import tokens
from fimaq_deploy.models.families.source import Answering
from fimaq_deploy.models.families.transformers_vit import TransformersVit, chain_blocks


class InOrder(Answering):
    """The model as it is deployed: with no patch hidden, and none moved."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        config = self.model.config
        trained, count = config.mask_ratio, self.model.embeddings.patch_embeddings.num_patches
        order = torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)
        config.mask_ratio = 0.0
        try:
            return {self.answer: self.model(images, noise=order).last_hidden_state}
        finally:
            config.mask_ratio = trained


class TransformersMae(TransformersVit):
    name = "transformers-mae"
    kinds = ("transformers ViTMAEModel",)
    class_names = ("ViTMAEModel",)

    def answer(self, model: Any) -> str:
        return "last_hidden_state"

    def original(self, model: Any) -> nn.Module:
        return InOrder(model, self.answer(model))

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        if shape != self.image_shape(model):
            raise UserError(f"the model takes no images of {shape}: expected {self.image_shape(model)}")
        embeddings = model.embeddings
        first = tokens(embeddings.patch_embeddings.projection, lambda images: _embedded(embeddings, images), shape)
        return {"patch_embed": first, **chain_blocks(model), "head": Head(model.layernorm)}


def _embedded(embeddings: Any, images: Tensor) -> Tensor:
    patches = embeddings.patch_embeddings(images)
    return torch.cat((embeddings.cls_token.expand(len(patches), -1, -1), patches), 1) + embeddings.position_embeddings


FAMILY = TransformersMae()
