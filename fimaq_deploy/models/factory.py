"""Models of the user's own: the factory that `package.module:factory` names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def find_factory(name: str) -> Callable[[], nn.Module]:
    """The factory that `package.module:factory` names. What the user's own code raises keeps its traceback."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"model '{name}': expected package.module:factory, for example my_models:swin_small")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"model '{name}': no module '{module_name}' in {Path.cwd()} or among the installed packages"
        ) from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        close = get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"model '{name}': module '{module_name}' has no function '{attribute}'{hint}")
    return factory
