from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

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


def test_the_paper_preset_has_the_released_hyper_parameters() -> None:
    recipe = Recipe.load("fimaq-paper")
    assert recipe.reconstruction.iterations == 20000
    assert (recipe.scale_search.images, recipe.scale_search.candidates) == (128, 128)
    assert (recipe.reconstruction.rank, recipe.reconstruction.temperature) == (5, 20)


PACES = [("w8a8", (20, 100, 400)), ("w6a6", (50, 250, 1000)), ("w3a3", (100, 500, 2000)), ("w4a16", (100, 500, 2000))]


@pytest.mark.parametrize(("name", "expected"), PACES)
def test_an_effort_says_how_long_a_block_learns(name: str, expected: tuple[int, ...]) -> None:
    recipe = Recipe.load(name)
    efforts = [recipe.replace(reconstruction={"effort": effort}) for effort in ("quick", "standard", "thorough")]
    for on_host in (True, False):
        found = [each.resolved(on_host=on_host).reconstruction for each in efforts]
        assert tuple(each.iterations for each in found) == expected
        assert [each.effort for each in found] == ["quick", "standard", "thorough"]


@pytest.mark.parametrize(("on_host", "effort", "iterations"), [(True, "quick", 100), (False, "standard", 500)])
def test_without_a_wish_a_cpu_is_quick_and_a_gpu_is_not(on_host: bool, effort: str, iterations: int) -> None:
    found = Recipe.load("w4a4").resolved(on_host=on_host)
    assert (found.reconstruction.effort, found.reconstruction.iterations) == (effort, iterations)
    assert found.resolved(on_host=not on_host) == found, "a resolved recipe is the same everywhere"


JOINT = [("w4a8", (100, 500, 2000)), ("w6a6", (50, 250, 1000)), ("w4a16", (100, 500, 2000)), ("w3a3", (0, 0, 0))]


@pytest.mark.parametrize(("name", "expected"), JOINT)
def test_joint_tuning_follows_an_effort_that_is_named(name: str, expected: tuple[int, ...]) -> None:
    recipe = Recipe.load(name)
    for on_host in (True, False):
        efforts = [recipe.replace(reconstruction={"effort": effort}) for effort in ("quick", "standard", "thorough")]
        found = [each.resolved(on_host=on_host) for each in efforts]
        assert tuple(each.tuning.iterations for each in found) == expected
        own = recipe.resolved(on_host=on_host)
        assert own.tuning.iterations == own.tuning.joint_iterations == expected[0], "nobody asked for more"
        assert own.resolved(on_host=not on_host) == own, "a resolved recipe is the same everywhere"


def test_iterations_of_joint_tuning_that_are_named_win() -> None:
    settings = ["reconstruction.effort=thorough", "tuning.iterations=7", "reconstruction.iterations=3"]
    found = Recipe.load("w4a8").with_settings(settings).resolved(on_host=False)
    assert (found.reconstruction.iterations, found.tuning.iterations) == (3, 7)
    only_blocks = Recipe.load("w4a8").with_settings([settings[0], settings[2]]).resolved(on_host=True)
    assert (only_blocks.reconstruction.iterations, only_blocks.tuning.iterations) == (3, 2000)


@pytest.mark.parametrize("effort", ["auto", "quick", "standard", "thorough"])
@pytest.mark.parametrize("iterations", [0, 7])
def test_iterations_that_are_named_win(effort: str, iterations: int) -> None:
    settings = [f"reconstruction.effort={effort}", f"reconstruction.iterations={iterations}"]
    found = Recipe.load("w3a3").with_settings(settings).resolved(on_host=False)
    assert found.reconstruction.iterations == found.reconstruction.iterations_a_block == iterations
    assert Recipe.load("fimaq-paper").resolved(on_host=False).reconstruction.iterations == 20_000


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(UserError, match=r"field 'reconstruction.effort'.*'thorough'.*got 'lazy'"):
        Recipe.load("w8a8").with_settings(["reconstruction.effort=lazy"])


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


NOT_YAML = ["[1", "\t1", "a: b: c", "*a", "&a [*a]", "{", "'", '"', "@", "%", "!!python/name:os.system", "!mine 5"]
NOT_YAML += ["2020-13-45", "1" * 5000, "[" * 3000, "a\0b", "{a: 1, a: 2}", "!!int x", "!!bool maybe", "a\n--- \nb"]


@pytest.mark.parametrize("value", NOT_YAML)
def test_a_setting_that_is_no_yaml_is_one_clear_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^setting .* is not YAML: ") as raised:
        Recipe.load("w8a8").with_settings([f"reconstruction.iterations={value}"])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


ENTIRE = ["scale_search.images", "scale_search.candidates", "reconstruction.images", "reconstruction.batch_size"]
ENTIRE += ["reconstruction.iterations", "reconstruction.patience", "reconstruction.rank", "tuning.iterations"]
ENTIRE += ["reconstruction.fisher_images", "reconstruction.quick_iterations", "tuning.batch_size"]
ENTIRE += ["tuning.quick_iterations"]
REAL = [f"reconstruction.{name}" for name in ("weight_lr", "scale_lr", "weight_scale_lr", "other_lr", "qdrop")]
REAL += [f"reconstruction.{name}" for name in ("temperature", "low_rank_weight", "diagonal_weight", "rounding_weight")]
REAL += [f"tuning.{name}" for name in ("weight_lr", "scale_lr", "other_lr", "temperature", "feature_weight", "mixing")]
REAL += ["reconstruction.warm_up"]


def numbers(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every field of a recipe that takes any number."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{prefix}{name}.")
        elif {int, float} & {kind for one in (field.annotation, *get_args(field.annotation)) for kind in bare(one)}:
            yield f"{prefix}{name}"


def bare(annotation: Any) -> tuple[Any, ...]:
    """A type without what is annotated to it."""
    return get_args(annotation)[:1] if get_origin(annotation) is Annotated else (annotation,)


def test_the_lists_of_numbers_are_complete() -> None:
    assert sorted(numbers()) == sorted([*ENTIRE, *REAL])


@pytest.mark.parametrize("field", [*ENTIRE, *REAL])
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e400", "-1", "9" * 30, "0x" + "f" * 5000, "true", "[1]"])
def test_no_number_is_endless(field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}'") as raised:
        Recipe.load("w8a8").with_settings([f"{field}={value}"])
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


@pytest.mark.parametrize("name", ["", "n" * 300, "m/" * 3000, "nul\0byte", "../recipes/w8a8", "/", ".", "~"])
def test_an_impossible_name_of_a_recipe_is_one_clear_line(name: str) -> None:
    with pytest.raises(UserError, match="recipe") as raised:
        Recipe.load(name)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
