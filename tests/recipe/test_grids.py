from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import LayerActivations, LayerOverride, LayerWeights, Recipe


def test_a_later_override_wins_where_it_says_something() -> None:
    first = LayerOverride(quantize="never", weights=LayerWeights(bits=8, block_size=32), softmax_bits=8, format="fp8")
    symmetric = LayerActivations(scheme="symmetric")
    later = LayerOverride(weights=LayerWeights(bits=3), activations=symmetric, softmax_bits=4)
    both = first.updated(later)
    assert (both.quantize, both.format, both.softmax_bits) == ("never", "fp8", 4)
    assert (both.weights.bits, both.weights.block_size) == (3, 32)
    assert (both.activations.bits, both.activations.scheme) == (None, "symmetric")
    assert first.updated(LayerOverride()) == first


def test_the_rest_of_a_grid_stays_when_one_field_of_it_changes() -> None:
    recipe = Recipe.load("w4a16").with_settings(["weights.bits=3"])
    assert (recipe.weights.bits, recipe.weights.block_size) == (3, Recipe.load("w4a16").weights.block_size)


@pytest.mark.parametrize(
    "setting", ["weights.bits=5", "activations.bits=2", "weights.block_size=24", "head.format=int3"]
)
def test_a_grid_that_nothing_executes_is_refused(setting: str) -> None:
    field, _, value = setting.partition("=")
    with pytest.raises(UserError, match=f"field '{field}'.*got '?{value}"):
        Recipe.load("w8a8").with_settings([setting])
