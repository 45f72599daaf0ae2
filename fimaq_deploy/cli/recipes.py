"""`fimaq-deploy recipes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.pipeline.presets import Presets
    from fimaq_deploy.recipe import Reconstruction


def recipes(json: JsonOption = None) -> None:
    """List the recipes that ship with the package."""
    from fimaq_deploy.pipeline.presets import presets

    found = presets()
    if not write_document(json, found.document()):
        _print(found)


def _print(found: Presets) -> None:
    table = Table("recipe", "weights", "activations", "iterations by effort", box=None)
    for recipe in found:
        block = f", blocks of {recipe.weights.block_size}" if recipe.weights.block_size else ""
        table.add_row(
            recipe.name,
            f"{recipe.weights.bits} bits{block}",
            f"{recipe.activations.bits} bits",
            _iterations(recipe.reconstruction),
        )
    stdout.print(table)


def _iterations(settings: Reconstruction) -> str:
    from fimaq_deploy.recipe import EFFORTS

    if settings.iterations is not None:
        return f"{settings.iterations:,}"
    efforts = (settings.model_copy(update={"effort": effort}) for effort in EFFORTS)
    return ", ".join(f"{each.iterations_a_block:,}" for each in efforts)
