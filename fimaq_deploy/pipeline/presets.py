"""The recipes that ship with the package."""

from __future__ import annotations

from typing import Any

from fimaq_deploy.recipe import Recipe


class Presets(tuple[Recipe, ...]):
    """By name."""

    def document(self) -> dict[str, Any]:
        """For programs: every field of every recipe."""
        return {"schema": "fimaq-deploy/recipes/1", "recipes": [recipe.model_dump(mode="json") for recipe in self]}


def presets() -> Presets:
    """All of them."""
    return Presets(Recipe.load(name) for name in Recipe.presets())
