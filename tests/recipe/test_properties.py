"""Any YAML, recipe, setting or sweep file at all is a value or one line."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fimaq_deploy.errors import UserError
from fimaq_deploy.files.reading import parse_yaml
from fimaq_deploy.pipeline.sweep_plan import Plan
from fimaq_deploy.recipe import Recipe


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every field by its path, as `--set` names it."""
    found = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        found.append(prefix + name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
    return found


FIELDS = fields(Recipe)
PIECES = ["{", "}", "[", "]", ":", ": ", ", ", "- ", "? ", "&a ", "*a", "!!", "!!int ", "!!python/object:os.system "]
PIECES += [
    "\n",
    "\t",
    " ",
    "'",
    '"',
    "%",
    "@",
    "`",
    "#",
    "---",
    "...",
    "<<",
    "null",
    "true",
    ".nan",
    ".inf",
    "1e3",
    "|",
]
PIECES += ["0x1f", ">", "2020-01-01", "2020-99-99", "1:60:60", "é", "\0", "\ufeff", "\x85", "9" * 30, "~", "=", *FIELDS]
yaml_like = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=15).map("".join)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from([2, 3, 4, 8, 16, 64, "auto", "never", "always", "dplr", 10**400, datetime.datetime.min])
)
names = st.sampled_from([part for path in FIELDS for part in path.split(".")]) | st.text(max_size=8)
data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4) | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=12,
)


def one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert 10 < len(str(error)) < 700


@settings(max_examples=500, deadline=None)
@given(yaml_like | st.text(max_size=40))
def test_any_text_is_yaml_or_one_line(text: str) -> None:
    try:
        parse_yaml(text, "recipe x")
    except UserError as error:
        one_line(error)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(names, data, max_size=4))
def test_any_fields_are_a_recipe_that_reads_back_or_one_line(changes: dict[str, Any]) -> None:
    try:
        recipe = Recipe().replace(**changes)
    except UserError as error:
        one_line(error)
    else:
        assert Recipe.model_validate(parse_yaml(recipe.to_yaml(), "recipe x")) == recipe


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIELDS) | st.text(max_size=12), yaml_like | scalars.map(str)), max_size=3))
def test_any_settings_are_a_recipe_or_one_line(pairs: list[tuple[str, str]]) -> None:
    try:
        recipe = Recipe.load("w8a8").with_settings([f"{key}={value}" for key, value in pairs])
    except UserError as error:
        one_line(error)
    else:
        assert Recipe.model_validate(parse_yaml(recipe.to_yaml(), "recipe x")) == recipe


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "trial.yaml"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | data.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode(errors="replace"))
)
def test_any_file_is_a_recipe_or_one_line(written: Path, content: bytes) -> None:
    written.write_bytes(content)
    try:
        Recipe.load(written)
    except UserError as error:
        one_line(error)


plans = st.fixed_dictionaries(
    {},
    optional={
        "models": data | st.lists(st.sampled_from(["vit_digits", "nowhere", "a:b", ""]) | data, max_size=3),
        "recipes": data | st.lists(st.sampled_from(["w8a8", "w4a4", "w9a9", ""]) | data, max_size=3),
        "targets": data | st.lists(st.sampled_from(["onnxruntime-cpu", "tensorflow"]) | data, max_size=2),
        "set": data | st.lists(yaml_like, max_size=2),
        **dict.fromkeys(("out", "device", "seed", "max_drop", "sensitivity"), scalars),
    },
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans | data)
def test_any_sweep_is_a_plan_or_one_line(written: Path, plan: Any) -> None:
    written.write_bytes(yaml.safe_dump(plan).encode(errors="replace"))
    try:
        Plan.load(written).cells()
    except UserError as error:
        one_line(error)
