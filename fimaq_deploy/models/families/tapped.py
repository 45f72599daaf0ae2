"""Encoders of several outputs as a chain: links in a row, and maps that are handed out behind some of them.

Outputs are in the order of the links, the last one behind the last link, which makes it the chain's head. Whatever
changes at a link moves the outputs at and behind it, and none before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fimaq_deploy.models.families.chain import Chain, Shape, linked
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.models.families.windows import Grid

Layout = Literal["NCHW", "NHWC", "NLC"]


class Map(nn.Module):
    """What is handed out of the stream at one place: its norm, and the layout that the original has.

    grid: rows and columns. prefix: tokens in front of the patches, which a map leaves out; None: NLC with them.
    """

    reads_a_mean = False

    def __init__(self, layout: Layout, grid: Grid, norm: nn.Module | None = None, prefix: int | None = 0) -> None:
        super().__init__()
        self.norm, self.layout, self.grid, self.prefix = norm or nn.Identity(), layout, grid, prefix
        # Says where it computes, which a map without a norm has nothing else for.
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: tokens (N, L, C) or a map (N, rows, columns, C)."""
        x = self.norm(x)
        if x.ndim == 3 and self.prefix:
            x = x[:, self.prefix :]
        if self.layout == "NLC":
            return x.flatten(1, 2) if x.ndim == 4 else x
        if x.ndim == 3:
            x = x.unflatten(1, self.grid)
        return x.permute(0, 3, 1, 2) if self.layout == "NCHW" else x

    def features(self, x: Tensor) -> Tensor:
        """The same as rows: there is no classifier behind it."""
        return self.forward(x).flatten(1)


class Tapped(Chain):
    """Images of one shape (C, H, W) to several tensors by name.

    links: as of `Chain`, without a head. taps: by the name of the link that each is behind, its output's name and what
    is handed out there; in the order of the links, one behind the last.
    """

    def __init__(self, links: Mapping[str, nn.Module], taps: Mapping[str, tuple[str, nn.Module]], shape: Shape) -> None:
        *others, last = taps.values()
        assert list(taps)[-1] == list(links)[-1], "the chain ends where it hands out last"
        super().__init__({**links, "head": last[1]}, shape)
        self.taps = nn.ModuleDict(dict(others))
        self.outputs = tuple(name for name, _ in taps.values())
        self._behind = {link: name for link, (name, _) in list(taps.items())[:-1]}

    def stages(self) -> list[Stage]:
        return [Stage(one.name, one.module, self._tap(one.name)) for one in super().stages()]

    def _tap(self, link: str) -> Any:
        return self.taps[self._behind[link]] if link in self._behind else None

    def forward(self, images: Tensor) -> Any:
        """Tensors by name."""
        x, found = images, []
        for name in self.names:
            x = linked(self, name)(x)
            if name in self._behind:
                found.append(self.taps[self._behind[name]](x))
        return dict(zip(self.outputs, [*found, x], strict=True))
