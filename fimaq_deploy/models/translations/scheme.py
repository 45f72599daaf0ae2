"""How one package names the weights of its models, as rules from its names to timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]

# Separate projections that timm keeps as one, in this order.
_FUSED = {"attn.q": "attn.qkv", "attn.k": "attn.qkv", "attn.v": "attn.qkv", "mlp.gate": "mlp.fc1", "mlp.up": "mlp.fc1"}
_PART = re.compile(r"(.*)\b(attn\.[qkv]|mlp\.(?:gate|up))\.(weight|bias)")


@dataclass(frozen=True)
class Scheme:
    """title: whose names they are. anchor: a name that all its checkpoints hold.

    rules: tried in order on each name, the first that matches all of it decides; None drops the tensor.
    head: rules for what lies outside the backbone, beside its last prefix.
    finish: what is to be done to the tensors themselves, under timm's names.
    """

    title: str
    anchor: str
    rules: tuple[Rule, ...]
    head: tuple[Rule, ...] = ()
    finish: Callable[[State], State] = field(default=lambda state: state)

    def prefixes(self, named: Mapping[str, Tensor]) -> list[str]:
        """What stands before the names of each model of this scheme."""
        found = [name for name in named if name == self.anchor or name.endswith(f".{self.anchor}")]
        return [name.removesuffix(self.anchor) for name in found]

    def translate(self, named: Mapping[str, Tensor], prefix: str) -> State:
        """The tensors behind a prefix under timm's names, with separate projections fused."""
        inside = {name[len(prefix) :]: tensor for name, tensor in named.items() if name.startswith(prefix)}
        outer = prefix.rstrip(".").rpartition(".")
        beside = f"{outer[0]}." if outer[0] else ""
        head = {name[len(beside) :]: tensor for name, tensor in named.items() if name.startswith(beside)}
        state = _renamed(inside, self.rules, keep=True)
        return self.finish(_fused({**state, **_renamed(head, self.head, keep=False)}))


def _renamed(state: Mapping[str, Tensor], rules: tuple[Rule, ...], *, keep: bool) -> State:
    found = {}
    for name, tensor in state.items():
        new = _apply(name, rules, name if keep else None)
        if new is not None:
            found[new] = tensor
    return found


def _apply(name: str, rules: tuple[Rule, ...], otherwise: str | None) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement) if isinstance(replacement, str) else replacement and replacement(match)
    return otherwise


def _fused(state: State) -> State:
    """q, k and v as one, and the two halves of a gated MLP. A bias that one of them lacks is zero."""
    import torch

    whole: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = _PART.fullmatch(name)
        if match:
            parts.setdefault(f"{match[1]}{_FUSED[match[2]]}.{match[3]}", {})[match[2]] = tensor
        else:
            whole[name] = tensor
    for name, found in parts.items():
        order = [part for part, fused in _FUSED.items() if f"{fused}." in name]
        blank = torch.zeros_like(next(iter(found.values())))
        whole[name] = torch.cat([found.get(part, blank) for part in order])
    return whole
