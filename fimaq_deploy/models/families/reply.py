"""What an encoder would have answered, where a quantized one stands in its place inside somebody's model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fimaq_deploy.errors import UserError


class Reply(dict[str, Any]):
    """Like an output object of `transformers`: read by name, as an attribute, or by place.

    Raises:
        UserError: the rest of the model reads something of the encoder that is not computed.
    """

    _empty: frozenset[str] = frozenset()

    def without(self, names: Collection[str]) -> Reply:
        """The same, which answers None for these where it has nothing."""
        self._empty = frozenset(names)
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: Any) -> Any:
        return tuple(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def __missing__(self, name: str) -> Any:
        if name in self._empty:
            return None
        raise UserError(
            f"the rest of the model reads '{name}' of its encoder, and of that only {', '.join(self)} is computed once "
            "it is quantized: make the model read that alone"
        )

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())
