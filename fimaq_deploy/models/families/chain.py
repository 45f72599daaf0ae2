"""Models of other libraries as a chain of links that we know."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families.roles import Stage

Shape = tuple[int, int, int]


class Chain(nn.Module):
    """Links one behind the other: images of one shape (C, H, W) to what the model answers.

    links: modules by dotted name; the first is `patch_embed`, the last `head`, with `features`.
    answer: what the original model calls it.
    origins: what the original model calls the modules that it shares, by their name here.
    """

    def __init__(self, links: Mapping[str, nn.Module], shape: Shape, *, classes: int = 0, answer: str = "") -> None:
        super().__init__()
        self.names = tuple(links)
        for name, link in links.items():
            _hang(self, name, link)
        self.input_shape, self.num_classes, self.answer = shape, classes, answer
        self.origins: dict[str, str] = {}

    def stages(self) -> list[Stage]:
        return [Stage(name, self.get_submodule(name)) for name in self.names]

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for name in self.names:
            x = linked(self, name)(x)
        return x

    def trace_origins(self, model: nn.Module) -> Chain:
        """Note which modules are the model's own."""
        theirs = {id(module): name for name, module in model.named_modules()}
        self.origins = {name: theirs[id(one)] for name, one in self.named_modules() if id(one) in theirs}
        return self


def _hang(root: nn.Module, name: str, link: nn.Module) -> None:
    """Put a module under a dotted name, making what is between."""
    parts = name.split(".")
    for part, inside in pairwise(parts):
        if not hasattr(root, part):
            # Numbers are places in a list: torch's exporter has no name for them elsewhere.
            root.add_module(part, nn.ModuleList() if inside.isdigit() else nn.Module())
        root = getattr(root, part)
    root.add_module(parts[-1], link)


def linked(root: Any, name: str) -> Any:
    """What `get_submodule` finds, in the way in which torch's exporter keeps its name."""
    for part in name.split("."):
        root = root[int(part)] if part.isdigit() else getattr(root, part)
    return root
