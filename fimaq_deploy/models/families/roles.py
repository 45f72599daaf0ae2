"""The words in which a family describes its models: stages, norms and their readers, heads, the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One link of the chain. `module` maps the previous stage's output (batch first) to this one's.

    tap: what is handed out of the chain behind it besides, made of its output; None: nothing.
    """

    name: str
    module: nn.Module
    tap: nn.Module | None = None


class Edge(nn.Module):
    """The first or last stage. It calls the model's own methods but owns only the parts that it names."""

    def __init__(self, model: Any, parts: Sequence[str]) -> None:
        super().__init__()
        # A tuple hides the model from module traversal: only the parts belong to this stage.
        self._hidden = (model,)
        found = ((part, getattr(model, part, None)) for part in parts)
        self.parts = nn.ModuleDict({part: module for part, module in found if module is not None})

    @property
    def model(self) -> Any:
        return self._hidden[0]


@dataclass(frozen=True)
class NormReaders:
    """A norm and every Linear that reads its output. can_shift: nothing but these layers sees the output's offset."""

    name: str
    owner: nn.Module
    leaf: str
    linears: tuple[nn.Linear, ...]
    can_shift: bool = True

    @property
    def norm(self) -> Any:
        return getattr(self.owner, self.leaf)


@dataclass(frozen=True)
class Heads:
    """An attention module: softmax(q kᵀ · scale + bias) v between two projections.

    name: of the module. qkv: the fused projection, rows q, k, v. proj: the output projection. count: of heads.
    plain_scores: whether nothing but a scale stands between the projection and q·kᵀ, and every head's q and k may be
        turned and scaled together. plain_values: whether what attention returns goes to `proj` as it is, or gated.
    gated: whether a gate multiplies it channel by channel.
    """

    name: str
    qkv: nn.Linear
    proj: nn.Linear
    count: int
    plain_scores: bool = True
    plain_values: bool = True
    gated: bool = False

    @property
    def size(self) -> int:
        """Channels of one head."""
        return self.qkv.weight.shape[0] // (3 * self.count)


@dataclass(frozen=True)
class LayerScale:
    """A factor for each channel, `owner.leaf.gamma`, behind a layer that writes to the residual stream."""

    owner: nn.Module
    leaf: str
    writer: nn.Linear


@dataclass(frozen=True)
class Stream:
    """The residual stream of a model, whole: what writes to it, what is stored in it, and what reads it.

    tokens: learned tensors (1, tokens, width). readers: every norm that reads it, all of one kind, the last one before
    the head. open_end: module and attribute of the identity that stands in the head's place in a model without one,
    whose last norm no Linear reads.
    """

    width: int
    writers: tuple[nn.Linear | nn.Conv2d, ...]
    tokens: tuple[Tensor, ...]
    readers: tuple[NormReaders, ...]
    scales: tuple[LayerScale, ...]
    open_end: tuple[nn.Module, str] | None = None


def is_rms(norm: nn.Module) -> bool:
    """Whether a module divides by the root mean square; libraries have classes of their own for it."""
    return isinstance(norm, nn.RMSNorm) or "rmsnorm" in type(norm).__name__.lower()


def is_norm(norm: nn.Module) -> bool:
    return isinstance(norm, nn.LayerNorm) or is_rms(norm)


def is_identity(module: nn.Module, *leaves: str) -> bool:
    """Whether a module has none of these parts, or identities in their place."""
    return all(isinstance(getattr(module, leaf, None), nn.Identity | None) for leaf in leaves)
