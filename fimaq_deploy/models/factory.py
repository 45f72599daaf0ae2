"""Models of the user's own: the factory that `package.module:factory` names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """The factory that `package.module:factory` names. Errors as of `find_function`."""
    return find_function(name, "model", "package.module:factory, for example my_models:swin_small")


def find_function(name: str, what: str, expected: str) -> Callable[..., Any]:
    """The function that `package.module:function` names; `what` and `expected` are for messages.

    What the user's own code raises keeps its traceback.

    Raises:
        UserError: it is no such name, or there is no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{what} '{name}': expected {expected}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"{what} '{name}': no module '{module_name}' in {Path.cwd()} or among the installed packages"
        ) from None
    found = getattr(module, attribute, None)
    if not callable(found):
        close = get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"{what} '{name}': module '{module_name}' has no function '{attribute}'{hint}")
    return found
