from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe


def test_settings_are_typed_as_yaml() -> None:
    recipe = Recipe.load("w8a8").with_settings(
        ["reconstruction.iterations=5", "reconstruction.qdrop=0.25", "head.weight_bits=null", "rewrites.norm=true"]
    )
    assert (recipe.reconstruction.iterations, recipe.reconstruction.qdrop) == (5, 0.25)
    assert recipe.head.weight_bits is None
    assert recipe.exact_rewrites.norm is True


def test_two_settings_of_one_part_both_hold() -> None:
    recipe = Recipe.load("w8a8").with_settings(["reconstruction.iterations=5", "reconstruction.rank=2"])
    assert (recipe.reconstruction.iterations, recipe.reconstruction.rank) == (5, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("weight.bits=4", "unknown field 'weight'.*did you mean 'weights'"),
        ("rewrites=all", "field 'rewrites': input should be auto or switches such as values=true, got 'all'"),
        ("rewrites=3", "field 'rewrites': input should be auto or switches"),
        ("rewrites.nrom=true", "unknown field 'rewrites.nrom'; did you mean 'rewrites.norm'"),
        ("rewrites.norm=7", "field 'rewrites.norm': input should be a valid boolean"),
        ("reconstruction.iteration=4", "unknown field 'reconstruction.iteration'.*'reconstruction.iterations'"),
        ("weights.bits=5", "field 'weights.bits'.*got 5"),
        ("reconstruction.iterations=-1", "field 'reconstruction.iterations'.*got -1"),
        ("reconstruction.iterations", "expected key=value"),
    ],
)
def test_a_bad_setting_is_one_clear_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Recipe.load("w8a8").with_settings([setting])
    assert "\n" not in str(raised.value)


NOT_YAML = ["[1", "\t1", "a: b: c", "*a", "&a [*a]", "{", "'", '"', "@", "%", "!!python/name:os.system", "!mine 5"]
NOT_YAML += ["2020-13-45", "1" * 5000, "[" * 3000, "a\0b", "{a: 1, a: 2}", "!!int x", "!!bool maybe", "a\n--- \nb"]


@pytest.mark.parametrize("value", NOT_YAML)
def test_a_setting_that_is_no_yaml_is_one_clear_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^setting .* is not YAML: ") as raised:
        Recipe.load("w8a8").with_settings([f"reconstruction.iterations={value}"])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a." * 3000 + "b=1", "no field is that deep"),
        ("weights.bits.deeper.still=1", "field 'weights.bits'"),
        ("reconstruction..iterations=1", "unknown field 'reconstruction.'"),
        (".=1", "unknown field ''"),
        ("weights=8", "field 'weights'"),
        ("name=", "field 'name'"),
        ("name=''", "field 'name'"),
        ("name=" + "n" * 300, "field 'name'"),
        ('name="a\\nb"', "field 'name'.*text of one line"),
        ("reconstruction.iterations=2020-01-01", "field 'reconstruction.iterations'"),
        ("=", "expected key=value"),
        ("", "expected key=value"),
        ("\0", "expected key=value"),
        ("\0=1", "unknown field"),
    ],
)
def test_a_setting_of_no_field_is_one_clear_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Recipe.load("w8a8").with_settings([setting])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
