"""`fimaq-deploy recipes`."""

from __future__ import annotations

from rich.table import Table

from fimaq_deploy.cli.console import stdout


def recipes() -> None:
    """List the recipes that ship with the package."""
    from fimaq_deploy.recipe import Recipe

    table = Table("recipe", "weights", "activations", "iterations a block", box=None)
    for name in Recipe.presets():
        recipe = Recipe.load(name)
        block = f", blocks of {recipe.weights.block_size}" if recipe.weights.block_size else ""
        table.add_row(
            name,
            f"{recipe.weights.bits} bits{block}",
            f"{recipe.activations.bits} bits",
            str(recipe.reconstruction.iterations),
        )
    stdout.print(table)
