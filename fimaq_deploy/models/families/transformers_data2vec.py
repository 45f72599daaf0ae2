"""Hugging Face's Data2Vec-Vision: BEiT, in modules of its own.

What is deployed is the logits, else the pooled output, else all tokens. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, RelativeBias, joined, tokens
from fimaq_deploy.models.families.transformers_beit import TransformersBeit, bias_of, head_of

_KINDS = ("Data2VecVisionModel", "Data2VecVisionForImageClassification")


class TransformersData2Vec(TransformersBeit):
    name = "transformers-data2vec"
    kinds = tuple(f"transformers {kind}" for kind in _KINDS)
    class_names = _KINDS

    def check(self, model: Any, what: str = "the model") -> None:
        for number, layer in enumerate(_tower(model).encoder.layer):
            if type(layer).__name__ != "Data2VecVisionLayer":
                expect(f"encoder.layer.{number}", layer, ())

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        tower = _tower(model)
        embeddings, patch = tower.embeddings, tower.config.patch_size
        proj, positions = embeddings.patch_embeddings.projection, embeddings.position_embeddings is not None
        first = tokens(proj, lambda images: embeddings(images)[0], shape, positions=positions)
        grid, shared = (shape[1] // patch, shape[2] // patch), getattr(tower.encoder, "relative_position_bias", None)
        blocks = {
            f"blocks.{number}": _block(layer, bias_of((_own_bias(layer), shared), grid))
            for number, layer in enumerate(tower.encoder.layer)
        }
        return {"patch_embed": first, **blocks, "head": head_of(model, tower, self.answer(model))}


def _tower(model: Any) -> Any:
    return getattr(model, "data2vec_vision", model)


def _own_bias(layer: Any) -> Any:
    return getattr(layer.attention.attention, "relative_position_bias", None)


def _block(layer: Any, bias: RelativeBias | None) -> Block:
    own = layer.attention.attention
    qkv = joined(own.query, own.key, own.value)
    attention = Attention(qkv, layer.attention.output.dense, own.num_attention_heads, bias=bias)
    mlp = Mlp(layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense)
    scales = (layer.lambda_1, layer.lambda_2)
    return Block(layer.layernorm_before, attention, layer.layernorm_after, mlp, scales=scales)


FAMILY = TransformersData2Vec()
