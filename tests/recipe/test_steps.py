from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.recipe.steps import RATES


def test_the_paper_preset_has_the_released_hyper_parameters() -> None:
    recipe = Recipe.load("fimaq-paper")
    assert recipe.reconstruction.iterations == 20000
    assert (recipe.scale_search.images, recipe.scale_search.candidates) == (128, 128)
    assert (recipe.reconstruction.rank, recipe.reconstruction.temperature) == (5, 20)


PACES = [("w8a8", (20, 100, 200)), ("w6a6", (50, 250, 500)), ("w3a3", (100, 500, 1000)), ("w4a16", (100, 500, 1000))]


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


JOINT = [("w4a8", (100, 500, 1000)), ("w6a6", (50, 250, 500)), ("w4a16", (100, 500, 1000)), ("w3a3", (0, 0, 0))]


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


def test_four_bits_tune_only_an_encoder_inside_of_a_model() -> None:
    recipe = Recipe.load("w4a4")
    thorough = recipe.replace(reconstruction={"effort": "thorough"})
    for on_host in (True, False):
        assert recipe.resolved(on_host=on_host).tuning.iterations == 0
        assert thorough.resolved(on_host=on_host).tuning.iterations == 0
        inside = recipe.resolved(on_host=on_host, inside=True)
        assert inside.tuning.iterations == inside.tuning.joint_iterations == 100
        assert thorough.resolved(on_host=on_host, inside=True).tuning.iterations == 1000
        assert inside.resolved(on_host=on_host) == inside, "a resolved recipe is the same everywhere"
        for iterations in (0, 7):
            named = recipe.with_settings([f"tuning.iterations={iterations}"])
            found = {named.resolved(on_host=on_host, inside=each).tuning.iterations for each in (False, True)}
            assert found == {iterations}


@pytest.mark.parametrize("name", sorted({*Recipe.presets()} - {"w4a4"}))
def test_other_presets_tune_alike_wherever_an_encoder_is(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.resolved(on_host=True) == recipe.resolved(on_host=True, inside=True)


def test_iterations_of_joint_tuning_that_are_named_win() -> None:
    settings = ["reconstruction.effort=thorough", "tuning.iterations=7", "reconstruction.iterations=3"]
    found = Recipe.load("w4a8").with_settings(settings).resolved(on_host=False)
    assert (found.reconstruction.iterations, found.tuning.iterations) == (3, 7)
    only_blocks = Recipe.load("w4a8").with_settings([settings[0], settings[2]]).resolved(on_host=True)
    assert (only_blocks.reconstruction.iterations, only_blocks.tuning.iterations) == (3, 1000)


@pytest.mark.parametrize("effort", ["auto", "quick", "standard", "thorough"])
@pytest.mark.parametrize("iterations", [0, 7])
def test_iterations_that_are_named_win(effort: str, iterations: int) -> None:
    settings = [f"reconstruction.effort={effort}", f"reconstruction.iterations={iterations}"]
    found = Recipe.load("w3a3").with_settings(settings).resolved(on_host=False)
    assert found.reconstruction.iterations == found.reconstruction.iterations_a_block == iterations
    assert Recipe.load("fimaq-paper").resolved(on_host=False).reconstruction.iterations == 20_000


@pytest.mark.parametrize(("effort", "factor"), [("quick", 1), ("standard", 2), ("thorough", 2), ("auto", 2)])
def test_three_bits_learn_faster_where_they_learn_for_long(effort: str, factor: int) -> None:
    recipe = Recipe.load("w3a3").replace(reconstruction={"effort": effort, "weight_lr": 0.05})
    found = recipe.resolved(on_host=False)
    for name in RATES:
        expected = getattr(recipe.reconstruction, name) * factor
        assert getattr(found.reconstruction, name) == pytest.approx(expected)
    assert found.resolved(on_host=True) == found == Recipe.model_validate(found.model_dump()), "once, and not again"


def test_rates_are_those_that_are_named_where_iterations_are() -> None:
    named = Recipe.load("w3a3").replace(reconstruction={"effort": "thorough", "iterations": 1000})
    for recipe in (
        named,
        *(Recipe.load(name).replace(reconstruction={"effort": "thorough"}) for name in ("w4a4", "w8a8")),
    ):
        found = recipe.resolved(on_host=False).reconstruction
        assert [getattr(found, name) for name in RATES] == [getattr(recipe.reconstruction, name) for name in RATES]


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(UserError, match=r"field 'reconstruction.effort'.*'thorough'.*got 'lazy'"):
        Recipe.load("w8a8").with_settings(["reconstruction.effort=lazy"])
