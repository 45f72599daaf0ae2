"""Models of the user's own: the factory that `package.module:factory` names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import UserError, shown

if TYPE_CHECKING:
    from torch import nn

_EXPECTED = "expected a function or class of yours that returns a torch.nn.Module and needs no arguments"


@contextmanager
def current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def find_factory(name: str) -> Callable[[], Any]:
    """The factory that `package.module:factory` names. Errors as of `find_function`.

    Raises:
        UserError: it cannot be called without arguments, or is Python's own.
    """
    factory = find_function(name, "model", "package.module:factory, for example my_models:swin_small")
    _require_no_arguments(name, factory)
    return factory


def find_function(name: str, what: str, expected: str) -> Callable[..., Any]:
    """The function that `package.module:function` names; `what` and `expected` are for messages.

    What the user's own code raises keeps its traceback.

    Raises:
        UserError: it is no such name, or there is no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [attribute, *module_name.split(".")]):
        raise UserError(f"{what} '{shown(name)}': expected {expected}")
    module = _imported(module_name, f"{what} '{shown(name)}'")
    found = getattr(module, attribute, None)
    if not callable(found):
        close = get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"{what} '{shown(name)}': module '{module_name}' has no function '{shown(attribute)}'{hint}")
    return found


def call_factory(name: str) -> nn.Module:
    """What the factory returns. What it prints goes to stderr, as stdout may be a program's result.

    Raises:
        UserError: it is no factory, it ends the program, or returns no module.
    """
    from torch import nn

    factory = find_factory(name)
    try:
        with redirect_stdout(sys.stderr):
            model = factory()
    except SystemExit as error:
        raise UserError(f"factory {name} ended the program (exit code {error.code}): {_EXPECTED}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"factory {name} returned {type(model).__name__}: expected a torch.nn.Module")
    return model


def _imported(module_name: str, what: str) -> Any:
    try:
        with redirect_stdout(sys.stderr):
            return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        places = f"{Path.cwd()} or among the installed packages"
        raise UserError(f"{what}: no module '{shown(module_name)}' in {places}") from None


def _require_no_arguments(name: str, factory: Callable[..., Any]) -> None:
    """Refuse what is no factory before it is called: `os:abort` would end the program, `os:system` needs a command."""
    from torch import nn

    if isinstance(factory, nn.Module):
        raise UserError(f"factory {name} is a {type(factory).__name__} already: {_EXPECTED}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UserError(f"factory {name} cannot be called without arguments ({error}): {_EXPECTED}") from None
    except ValueError:  # nothing says what it takes
        raise UserError(f"factory {name} is built into Python: {_EXPECTED}") from None
    if inspect.isbuiltin(factory):
        raise UserError(f"factory {name} is built into Python: {_EXPECTED}")
