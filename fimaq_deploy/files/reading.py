"""What users write: text and YAML, read so that anything at all is either data or one line.

YAML as PyYAML's safe loader reads it, but without what makes a small file large or ambiguous: deep nests, aliases that
multiply, keys that are given twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from fimaq_deploy.errors import UserError, shown

_MOST_MB = 16
_DEEPEST = 50
_MOST_NODES = 100_000


def read_text(path: Path, what: str, *, wanted: str = "a text file", most_mb: int = _MOST_MB) -> str:
    """A file's text, in UTF-8 with or without a mark of it.

    what: how to call the file, as in "recipe". wanted: what to name instead of one that is none.

    Raises:
        UserError: it cannot be read, is too large for what it should be, or is no text.
    """
    name = f"{what} {shown(str(path))}"
    try:
        with path.open("rb") as file:
            data = file.read(most_mb * 2**20 + 1)
    except OSError as error:
        raise UserError(f"cannot read {name}: {os.strerror(error.errno or 0).lower()}; name {wanted}") from error
    except ValueError:  # a NUL byte in the name
        raise UserError(f"cannot read {name}: it is no name of a file; name another") from None
    if len(data) > most_mb * 2**20:
        raise UserError(f"{name} is larger than {most_mb} MB; name {wanted}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text (byte {error.start}): save it as UTF-8, or name {wanted}") from None


def parse_yaml(text: str, name: str) -> Any:
    """The one document in a text. name: how to call it in a message.

    Raises:
        UserError: it is not YAML, or YAML that no settings need.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{name} is not YAML: {place}{shown(error.problem or 'cannot be read', most=160)}") from None
    except Exception as error:  # PyYAML's makers of dates and numbers raise whatever they meet
        raise UserError(f"{name} is not YAML: {shown(str(error), most=160)}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader with the limits above. `depth`: how deep the node is that is being read."""

    depth = 0

    def compose_document(self) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_document()
        if node is not None and _size(node, {}) > _MOST_NODES:
            raise yaml.MarkedYAMLError(problem=f"aliases make it more than {_MOST_NODES:,} values")
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"it is nested more than {_DEEPEST} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key {shown(key.value)!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for with its aliases written out; endless for one that holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for pair in inner for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
