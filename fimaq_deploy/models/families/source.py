"""The base of families whose models are no chain.

Positions are handed to every block, masks are made on the way, q, k and v are three products, outputs are objects. Such
a family builds a `Chain` from the parts of a model: it shares their numbers, it is what is quantized and exported, and
it is compared with the model itself before anything is done to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.chain import Chain, Shape
from fimaq_deploy.models.families.chained import FAMILY as CHAINED
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.models.families.reply import Reply
from fimaq_deploy.models.families.roles import Heads, NormReaders, Stage, Stream


class Answering(nn.Module):
    """A model of several outputs, answering the one that is deployed, by its name."""

    def __init__(self, model: Any, answer: str) -> None:
        super().__init__()
        self.model, self.answer = model, answer

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.model(images)
        return {self.answer: found if isinstance(found, Tensor) else found[self.answer]}


class Source(Family):
    """A family whose models are quantized as a `Chain` of their parts."""

    @abstractmethod
    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        """The chain's links for images (C, H, W), sharing the model's numbers.

        Raises:
            UserError: the model takes no images of this shape.
        """

    def answer(self, model: Any) -> str:
        """The name of the output that is deployed; empty for a model that returns one tensor."""
        return ""

    def as_chain(self, model: nn.Module, shape: Shape | None = None) -> Chain:
        shape = shape or self.image_shape(model)
        chain = Chain(self.links(model, shape), shape, classes=self.classes(model), answer=self.answer(model))
        return chain.trace_origins(model).train(model.training)

    def original(self, model: nn.Module) -> nn.Module:
        answer = self.answer(model)
        return Answering(model, answer).train(model.training) if answer else model

    def reply(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        answer = self.answer(model)
        return Reply({answer: tensors[0]}) if answer else tensors[0]

    # What is asked of the model itself is answered of its chain.

    def stages(self, model: nn.Module) -> list[Stage]:
        return self.as_chain(model).stages()

    def heads(self, model: nn.Module) -> Iterator[Heads]:
        return CHAINED.heads(self.as_chain(model))

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        return CHAINED.spelled_out(attention)

    def norms(self, model: nn.Module) -> Iterator[NormReaders]:
        return CHAINED.norms(self.as_chain(model))

    def head_reads_a_mean(self, model: nn.Module) -> bool:
        return CHAINED.head_reads_a_mean(self.as_chain(model))

    def stream(self, model: nn.Module) -> Stream | str:
        return CHAINED.stream(self.as_chain(model))


class TransformersSource(Source):
    """Modules of transformers, which are known by the names of their classes: nothing of it is imported."""

    class_names: tuple[str, ...] = ()

    def claims(self, model: object) -> bool:
        own = type(model)
        return own.__module__.startswith("transformers.models.") and own.__name__ in self.class_names

    def image_shape(self, model: Any) -> Shape:
        size = model.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return model.config.num_channels, height, width
