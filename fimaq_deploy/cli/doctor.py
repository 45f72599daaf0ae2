"""`fimaq-deploy doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.pipeline.inventory import Machine


def doctor(json: JsonOption = None) -> None:
    """Say what can be built and run on this machine, and why not."""
    from fimaq_deploy.pipeline.inventory import look_around

    found = look_around()
    if not write_document(json, found.document()):
        _print(found)


def _print(found: Machine) -> None:
    machine = found.environment
    stdout.print(f"{machine.cpu}, {machine.cores} cores; GPU: {machine.gpu or 'none'}; Python {machine.python}")
    stdout.print(", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    for one in found.abilities:
        stdout.print(f"{one.runtime.name:<18}{_ability(one.not_built, one.not_run)}", soft_wrap=True)


def _ability(not_built: str | None, not_run: str | None) -> str:
    if not_built:
        return f"no: {not_built}"
    return f"builds, does not run: {not_run}" if not_run else "builds and runs"
