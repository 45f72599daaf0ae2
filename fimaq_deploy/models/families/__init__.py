"""The architectures that can be quantized, one file each, described by role (`roles`, `family`).

A file is named SOURCE_NAME.py after the package that the models come from (`timm_vit.py`) and holds one `FAMILY`. It is
imported only where that package is loaded already: a model that is here has loaded its own. Adding a file adds a
family; `register` adds one from outside. A family either names the parts of its models where they are (`family`), or
builds a chain of them (`source`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from fimaq_deploy.models.families.family import Family

# What models of any library become, asked first, and what they can be wrapped in, asked last.
_OWN, _AROUND = "chained", "wrapped"

_registered: list[Family] = []


def register(family: Family) -> Family:
    """Add a family of the caller's own; it is asked before those that ship."""
    _registered.insert(0, family)
    return family


def families() -> Iterator[Family]:
    """Every family whose models can be here."""
    yield from _registered
    if "torch" in sys.modules:
        yield import_module(f"{__name__}.{_OWN}").FAMILY
    for found in iter_modules(__path__):
        source, underscore, _ = found.name.partition("_")
        if underscore and source in sys.modules:
            yield import_module(f"{__name__}.{found.name}").FAMILY
    if "torch" in sys.modules:
        yield import_module(f"{__name__}.{_AROUND}").FAMILY


def find_family(model: object) -> Family | None:
    """The family of a model, quantized or not; None where no family knows it."""
    return next((family for family in families() if family.claims(model)), None)


def family_of(model: object, what: str = "the model") -> Family:
    """The family of a model, quantized or not.

    Raises:
        UserError: no family knows it; the message calls it `what`.
    """
    family = find_family(model)
    if family is None:
        raise UserError(f"{what} is a {type(model).__name__}: expected a {known_kinds()}")
    return family


def known_kinds() -> str:
    """What is known, in few words: every kind of timm, and how many of other libraries."""
    found = sorted({kind for family in families() for kind in family.kinds})
    timm = [kind for kind in found if kind.startswith("timm ")]
    others = {kind.split()[0] for kind in found} - {"timm"}
    words = [*(timm or ["timm model"]), *(f"model of {source}" for source in sorted(others))]
    return ", ".join(words)
