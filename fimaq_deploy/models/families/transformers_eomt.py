"""Hugging Face's EoMT: a DINOv2 through whose last blocks the queries of a segmenter run beside the patches.

What is quantized is all of its blocks; what is deployed is the tokens behind the last norm, queries first. Classes and
masks, a few products and convolutions made of those tokens, stay in floats. While it is trained the last blocks hide
patches from queries by what they predict: such a model is refused. Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.head import Head
from fimaq_deploy.models.families.parts import Block, tokens
from fimaq_deploy.models.families.reply import Reply
from fimaq_deploy.models.families.source import TransformersSource
from fimaq_deploy.models.families.transformers_vit import chain_blocks, check_blocks


class Eomt(TransformersSource):
    name = "transformers-eomt"
    kinds = ("transformers EomtForUniversalSegmentation",)
    class_names = ("EomtForUniversalSegmentation",)

    def classes(self, model: Any) -> int:
        return 0

    def answer(self, model: Any) -> str:
        return "last_hidden_state"

    def check(self, model: Any, what: str = "the model") -> None:
        check_blocks(model)
        if bool((model.attn_mask_probs > 0).any()):
            raise UserError(
                f"{what} hides patches from queries by what it predicts (attn_mask_probs), as EoMT does while it is "
                "trained: set them to zero, as they are at the end of its training, and see that it still answers well"
            )

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        first = tokens(model.embeddings.patch_embeddings.projection, model.embeddings, shape)
        blocks: dict[str, nn.Module] = dict(chain_blocks(model))
        begin = f"blocks.{len(blocks) - model.config.num_blocks}"
        return {
            "patch_embed": first,
            **blocks,
            begin: AskingBlock(blocks[begin], model.query.weight),
            "head": Head(model.layernorm),
        }

    def reply(self, model: Any, tensors: Sequence[Tensor]) -> Any:
        """With the masks and classes of the tokens."""
        masks, classes = model.predict(tensors[0])
        return Reply(masks_queries_logits=masks, class_queries_logits=classes, last_hidden_state=tensors[0])


class AskingBlock(Block):
    """A block in front of which the queries join the tokens. queries: (queries, channels)."""

    def __init__(self, block: Any, queries: Tensor) -> None:
        nn.Module.__init__(self)
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.ls1, self.ls2 = block.ls1, block.ls2
        self.queries = nn.Parameter(queries.detach()[None].clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat((self.queries.expand(len(x), -1, -1), x), 1))


FAMILY = Eomt()
