"""From what users write to fields of a recipe, and their mistake as one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import parse_yaml
from fimaq_deploy.recipe.steps import Rewrites

_DEEPEST_KEY = 20  # names of layers have dots too


def parsed_setting(setting: str) -> dict[str, Any]:
    """`a.b=value` as `{a: {b: value}}`, the value read as YAML."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"setting '{shown(setting)}': expected key=value, for example reconstruction.iterations=200")
    parts = key.split(".")
    if len(parts) > _DEEPEST_KEY:
        raise UserError(f"setting '{shown(setting)}': no field is that deep; see docs/reference/recipe.md")
    nested: Any = parse_yaml(value, f"setting '{shown(setting)}'")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def merged_fields(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` changed by `changes`; a mapping changes only the fields that it names."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = merged_fields(merged[key], value)
        merged[key] = value
    return merged


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the first field that `model` refuses."""
    problem = error.errors()[0]
    # What may be a word instead is named by its class, too.
    field = ".".join(str(part) for part in problem["loc"] if part != Rewrites.__name__)
    if problem["type"] == "extra_forbidden":
        known = sorted(_field_names(model))
        close = get_close_matches(field, known, 1) or get_close_matches(field.rpartition(".")[2], known, 1)
        return f"unknown field '{shown(field)}'" + (
            f"; did you mean '{close[0]}'?" if close else f"; expected {', '.join(model.model_fields)}"
        )
    return f"field '{shown(field)}': {problem['msg'].lower()}, got {shown(problem['input'], quoted=True)}"


def _field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield prefix + name
        kind = info.annotation
        kind = next((one for one in get_args(kind) if one is Rewrites), kind)
        # Python 3.10 calls dict[str, ...] a type, too.
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _field_names(kind, f"{prefix}{name}.")
