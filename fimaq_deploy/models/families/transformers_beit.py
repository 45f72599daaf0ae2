"""Hugging Face's BEiT: a ViT with a bias by relative position, of each block or shared.

What is deployed is the logits, else the pooled output, else all tokens. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.head import FirstToken, Head, Mean
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, RelativeBias, joined, tokens
from fimaq_deploy.models.families.source import TransformersSource

_WITH_CLASSES = "BeitForImageClassification"
_KINDS = ("BeitModel", _WITH_CLASSES)


class TransformersBeit(TransformersSource):
    name = "transformers-beit"
    kinds = tuple(f"transformers {kind}" for kind in _KINDS)
    class_names = _KINDS

    def classes(self, model: Any) -> int:
        return model.config.num_labels if hasattr(model, "classifier") else 0

    def check(self, model: Any, what: str = "the model") -> None:
        for number, layer in enumerate(_tower(model).layers):
            if type(layer).__name__ != "BeitLayer":
                expect(f"layers.{number}", layer, ())

    def answer(self, model: Any) -> str:
        if hasattr(model, "classifier"):
            return "logits"
        return "last_hidden_state" if model.pooler is None else "pooler_output"

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        tower = _tower(model)
        embeddings, patch = tower.embeddings, tower.config.patch_size
        positions = embeddings.position_embeddings is not None
        first = tokens(embeddings.patch_embeddings.projection, embeddings, shape, positions=positions)
        grid = (shape[1] // patch, shape[2] // patch)
        blocks = {
            f"blocks.{number}": _block(layer, bias_of((layer.relative_position_bias, tower.shared_position_bias), grid))
            for number, layer in enumerate(tower.layers)
        }
        return {"patch_embed": first, **blocks, "head": head_of(model, tower, self.answer(model))}


def _tower(model: Any) -> Any:
    return getattr(model, "beit", model)


@torch.no_grad()
def bias_of(parts: tuple[Any, ...], grid: tuple[int, int]) -> RelativeBias | None:
    """One table for what a block and the model add; of another image size, resampled as the model does."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    index: Tensor = found[0].generate_relative_position_index(grid)
    table = found[0].relative_position_bias_table.new_zeros(
        int(index.max()) + 1, found[0].relative_position_bias_table.shape[1]
    )
    for part in found:
        entries = table.new_zeros(table.shape)
        entries[index.flatten().to(table.device)] = part(grid)[0].permute(1, 2, 0).flatten(0, 1)
        table += entries
    return RelativeBias(table, index.to(table.device))


def _block(layer: Any, bias: RelativeBias | None) -> Block:
    own = layer.attention
    qkv = joined(own.q_proj, own.k_proj, own.v_proj)
    attention = Attention(qkv, own.o_proj, own.num_attention_heads, scale=own.scaling, bias=bias)
    mlp = Mlp(layer.mlp.fc1, layer.mlp.activation_fn, layer.mlp.fc2)
    first, second = (one if isinstance(one, Tensor) else None for one in (layer.lambda_1, layer.lambda_2))
    return Block(layer.layernorm_before, attention, layer.layernorm_after, mlp, scales=(first, second))


def head_of(model: Any, tower: Any, answer: str) -> Head:
    if answer == "last_hidden_state":
        return Head(tower.layernorm)
    classifier, norm = getattr(model, "classifier", None), tower.pooler.layernorm
    return Head(tower.layernorm, FirstToken() if norm is None else Mean(1), norm, classifier)


FAMILY = TransformersBeit()
