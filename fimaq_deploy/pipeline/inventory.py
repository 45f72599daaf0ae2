"""What there is to build with: this machine and its targets, and the recipes that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fimaq_deploy.engines.runtimes import Runtime, every_runtime, runtime_packages
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema
from fimaq_deploy.report.environment import describe_environment


@dataclass(frozen=True)
class Ability:
    """One target. not_built, not_run: why nothing can be built for it here, or run; None where it can."""

    runtime: Runtime
    not_built: str | None
    not_run: str | None

    def document(self) -> dict[str, Any]:
        """For programs."""
        names = {"name": self.runtime.name, "title": self.runtime.title}
        return {**names, "not_built": self.not_built, "not_run": self.not_run}


@dataclass(frozen=True)
class Machine:
    """This machine, its software, and what it can do for each target."""

    environment: schema.Environment
    abilities: tuple[Ability, ...]

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/doctor/1",
            "environment": self.environment.model_dump(mode="json"),
            "targets": [
                {
                    "name": one.runtime.name,
                    "title": one.runtime.title,
                    "not_built": one.not_built,
                    "not_run": one.not_run,
                }
                for one in self.abilities
            ],
        }


class Presets(tuple[Recipe, ...]):
    """The recipes that ship with the package, by name."""

    def document(self) -> dict[str, Any]:
        """For programs: every field of every recipe."""
        return {"schema": "fimaq-deploy/recipes/1", "recipes": [recipe.model_dump(mode="json") for recipe in self]}


def look_around() -> Machine:
    """What can be built and run here."""
    abilities = (Ability(runtime, *runtime.availability()) for runtime in every_runtime())
    return Machine(describe_environment(runtime_packages()), tuple(abilities))


def presets() -> Presets:
    """The recipes that ship with the package."""
    return Presets(Recipe.load(name) for name in Recipe.presets())
