"""The ViT that Hugging Face's DPT brings: the rest of a depth model or segmenter reads the tokens behind some blocks.

They are among its hidden states, with the token for classes in front and without a norm. A hybrid, whose patches are
made by a convolutional network, is none of this family. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.family import expect
from fimaq_deploy.models.families.maps import Maps, Named
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, joined, tokens
from fimaq_deploy.models.families.reply import Reply
from fimaq_deploy.models.families.source import TransformersSource
from fimaq_deploy.models.families.tapped import Map
from fimaq_deploy.models.families.windows import patch_grid


class Asked(Named):
    """The model, asked for its hidden states as the models around it do."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        answer = self.model(images, output_hidden_states=True)
        return dict(zip(self._family.outputs(self.model), self._family.tensors(self.model, answer), strict=True))


class Dpt(TransformersSource, Maps):
    name = "transformers-dpt"
    kinds = ("transformers DPTModel",)
    class_names = ("DPTModel",)

    def claims(self, model: object) -> bool:
        own: Any = model
        return super().claims(own) and not own.config.is_hybrid

    def check(self, model: Any, what: str = "the model") -> None:
        for number, layer in enumerate(model.encoder.layer):
            if type(layer).__name__ != "DPTViTLayer":
                expect(f"encoder.layer.{number}", layer, ())

    def original(self, model: nn.Module) -> nn.Module:
        return Asked(model, self).train(model.training)

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        embeddings = model.embeddings
        proj = embeddings.patch_embeddings.projection
        first = tokens(proj, lambda images: embeddings(images).last_hidden_states, shape)
        return {"patch_embed": first, **{f"blocks.{n}": _block(one) for n, one in enumerate(model.encoder.layer)}}

    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        grid = patch_grid(model.embeddings.patch_embeddings.projection, shape)
        return {f"blocks.{index}": Map("NLC", grid, None, None) for index in _indices(model)}

    def outputs(self, model: Any) -> tuple[str, ...]:
        return tuple(f"blocks_{index}" for index in _indices(model))

    def tensors(self, model: Any, answer: Any) -> Sequence[Tensor]:
        return [answer.hidden_states[index + 1] for index in _indices(model)]

    def reply(self, model: Any, tensors: Sequence[Tensor]) -> Any:
        """Hidden states with nothing in the places that the rest does not read."""
        states: list[Tensor | None] = [None] * (len(model.encoder.layer) + 1)
        for index, found in zip(_indices(model), tensors, strict=True):
            states[index + 1] = found
        return Reply(hidden_states=tuple(states))


def _indices(model: Any) -> list[int]:
    """The blocks whose tokens are read, in the order of the blocks, which is that of the rest, too."""
    return sorted(set(model.config.backbone_out_indices))


def _block(layer: Any) -> Block:
    own = layer.attention.attention
    qkv = joined(own.query, own.key, own.value)
    attention = Attention(qkv, layer.attention.output.dense, own.num_attention_heads)
    mlp = Mlp(layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense)
    return Block(layer.layernorm_before, attention, layer.layernorm_after, mlp)


FAMILY = Dpt()
