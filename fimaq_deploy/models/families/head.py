"""How chains end: a norm, one vector of many tokens, a classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FirstToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Mean(nn.Module):
    """Over the tokens behind `prefix` others."""

    def __init__(self, prefix: int = 0) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.prefix :].mean(1)


class MapMean(nn.Module):
    """Over the rows and columns of (batch, rows, columns, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


class Rows(nn.Module):
    """A map as rows of tokens (batch, tokens, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)


class FirstTwo(nn.Module):
    """The class and the distillation token, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].flatten(1)


class Largest(nn.Module):
    """Over the tokens behind `prefix` others, alone or halved with their mean."""

    def __init__(self, prefix: int, *, with_mean: bool = False) -> None:
        super().__init__()
        self.prefix, self.with_mean = prefix, with_mean

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.prefix :]
        return 0.5 * (patches.amax(1) + patches.mean(1)) if self.with_mean else patches.amax(1)


class FirstAndMean(nn.Module):
    """The first token and the mean of those behind `prefix`, side by side."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, 0], x[:, self.prefix :].mean(1)), 1)


ATTENTION_POOL = "attention pooling asks one question of all tokens: a product of one row an image gains nothing"


class Kept(nn.Module):
    """A part of the model's own that stays in floats, for a `reason`."""

    def __init__(self, part: nn.Module, reason: str = ATTENTION_POOL) -> None:
        super().__init__()
        self.part, self.reason = part, reason

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


def pool(kind: str, prefix: int) -> nn.Module:
    """timm's word for a pooling of tokens."""
    if kind in ("max", "avgmax"):
        return Largest(prefix, with_mean=kind == "avgmax")
    return Mean(prefix) if kind == "avg" else FirstToken() if kind == "token" else nn.Identity()


class Head(nn.Module):
    """Tokens to what the chain answers; `features` stops before the classifier."""

    def __init__(
        self,
        norm: nn.Module | None = None,
        pool: nn.Module | None = None,
        neck: nn.Module | None = None,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm, self.pool, self.neck, self.classifier = (
            one or nn.Identity() for one in (norm, pool, neck, classifier)
        )

    @property
    def reads_a_mean(self) -> bool:
        return isinstance(self.pool, Mean | MapMean) or getattr(self.pool, "with_mean", False)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate feature."""
        return self.neck(self.pool(self.norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
