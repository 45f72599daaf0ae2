"""A recipe's `layers`: patterns over the names of a model's layers and attentions, and what they change.

`*` stands for any characters, dots too; where several patterns match a name, later ones win field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import LayerOverride

_NEAREST = 3


class Overrides:
    """The entries of a recipe, held against a model's names.

    Raises:
        UserError: an entry matches nothing that it could change; the message has the nearest names.
    """

    def __init__(self, entries: Mapping[str, LayerOverride], layers: Sequence[str], attentions: Sequence[str]) -> None:
        self._entries = entries
        for pattern, entry in entries.items():
            _require_match(pattern, entry, layers, attentions)

    def of(self, name: str) -> LayerOverride:
        """What is changed for a name; an override of nothing where no pattern matches."""
        found = LayerOverride()
        for pattern, entry in self._entries.items():
            if fnmatchcase(name, pattern):
                found = found.updated(entry)
        return found


def _require_match(pattern: str, entry: LayerOverride, layers: Sequence[str], attentions: Sequence[str]) -> None:
    wanted, kind = (*layers, *attentions), "layer or attention"
    if entry.weights.bits or entry.weights.block_size is not None:
        wanted, kind = tuple(layers), "layer with weights"
    elif entry.softmax_bits:
        wanted, kind = tuple(attentions), "attention"
    if not any(fnmatchcase(name, pattern) for name in wanted):
        plain = pattern.replace("*", "")
        near = get_close_matches(pattern, wanted, _NEAREST, 0.4) or get_close_matches(plain, wanted, _NEAREST, 0.0)
        raise UserError(f"recipe: layers entry '{pattern}' matches no {kind} of this model; nearest: {', '.join(near)}")
