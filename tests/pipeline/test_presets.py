from __future__ import annotations

from fimaq_deploy.pipeline.presets import presets
from fimaq_deploy.recipe import Recipe


def test_the_presets_are_all_there() -> None:
    assert tuple(presets()) == tuple(Recipe.load(name) for name in Recipe.presets())
    assert [one["name"] for one in presets().document()["recipes"]] == Recipe.presets()
