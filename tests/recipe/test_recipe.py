from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe


@pytest.mark.parametrize("name", Recipe.presets())
def test_every_preset_loads_under_its_own_name(name: str) -> None:
    assert Recipe.load(name).name == name


def test_the_promised_presets_exist() -> None:
    assert {"w8a8", "w6a6", "w4a8", "w4a4", "w3a3", "w4a16", "fimaq-paper"} <= set(Recipe.presets())


@pytest.mark.parametrize(("name", "weights", "activations"), [("w8a8", 8, 8), ("w4a8", 4, 8), ("w3a3", 3, 3)])
def test_a_preset_has_the_bits_of_its_name(name: str, weights: int, activations: int) -> None:
    recipe = Recipe.load(name)
    assert (recipe.weights.bits, recipe.activations.bits) == (weights, activations)


def test_a_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = Recipe.load("w4a4").replace(reconstruction={"iterations": 7})
    path = tmp_path / "mine.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.load(path) == recipe


def test_a_file_takes_its_name_from_the_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("weights: {bits: 4}")
    recipe = Recipe.load(path)
    assert (recipe.name, recipe.weights.bits) == ("mine", 4)


def test_replace_changes_only_what_it_names() -> None:
    recipe = Recipe.load("w4a8")
    changed = recipe.replace(reconstruction={"iterations": 200})
    assert changed.reconstruction.iterations == 200
    assert changed.reconstruction.loss == recipe.reconstruction.loss
    assert changed.weights == recipe.weights


def test_rewrites_are_switches_or_a_word_for_them() -> None:
    recipe = Recipe.load("w8a8").with_settings(["rewrites=auto"])
    assert recipe.rewrites == "auto"
    with pytest.raises(ValueError, match="decided on images"):
        _ = recipe.exact_rewrites
    named = recipe.with_settings(["rewrites.values=true"])
    assert named.exact_rewrites.values is True and named.exact_rewrites.norm is None


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'w8a8'"):
        Recipe.load("w8a9")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "", "\x00"])
def test_a_file_that_is_no_recipe_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        Recipe.load(path)
    assert "\n" not in str(raised.value)


def test_yaml_is_readable() -> None:
    text = Recipe.load("w8a8").to_yaml()
    assert text.startswith("name: w8a8\n")
    assert yaml.safe_load(text)["weights"]["bits"] == 8


@pytest.mark.parametrize("name", ["", "n" * 300, "m/" * 3000, "nul\0byte", "../recipes/w8a8", "/", ".", "~"])
def test_an_impossible_name_of_a_recipe_is_one_clear_line(name: str) -> None:
    with pytest.raises(UserError, match="recipe") as raised:
        Recipe.load(name)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
