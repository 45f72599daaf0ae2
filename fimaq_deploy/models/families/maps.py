"""The base of families whose models answer several tensors: the feature maps that detectors and segmenters read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.roles import Stream
from fimaq_deploy.models.families.source import Source
from fimaq_deploy.models.families.tapped import Tapped


class Named(nn.Module):
    """A model of several outputs, answering them by name."""

    def __init__(self, model: nn.Module, family: Maps) -> None:
        super().__init__()
        self.model, self._family = model, family

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self._family.tensors(self.model, self.model(images))
        return dict(zip(self._family.outputs(self.model), found, strict=True))


class Maps(Source):
    """A family whose models are quantized as a `Tapped` chain."""

    @abstractmethod
    def taps(self, model: Any, shape: Shape, links: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        """What is handed out, by the name of the link that it is behind, in their order."""

    @abstractmethod
    def outputs(self, model: Any) -> tuple[str, ...]:
        """What the outputs are called, in the order of the links."""

    def tensors(self, model: Any, answer: Any) -> Sequence[Tensor]:
        """Its outputs, in that order, in what the model returns."""
        return list(answer.values()) if isinstance(answer, Mapping) else list(answer)

    def as_chain(self, model: nn.Module, shape: Shape | None = None) -> Tapped:
        shape = shape or self.image_shape(model)
        links = dict(self.links(model, shape))
        found = self.taps(model, shape, links)
        names = dict(zip(found, self.outputs(model), strict=True))
        end = list(links).index(next(reversed(names))) + 1
        taps = {link: (names[link], tap) for link, tap in found.items()}
        chain = Tapped(dict(list(links.items())[:end]), taps, shape)
        chain.trace_origins(model).train(model.training)
        return chain

    def original(self, model: nn.Module) -> nn.Module:
        return Named(model, self).train(model.training)

    def classes(self, model: nn.Module) -> int:
        return 0

    def stream(self, model: nn.Module) -> Stream | str:
        return f"{type(model).__name__}: it hands out its residual stream, whose channels a rotation would mix"
