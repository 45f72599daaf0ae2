"""Runtimes: building, loading and running engines. Importing this package imports no runtime."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.engines.load import load_engine
    from fimaq_deploy.engines.options import Option
    from fimaq_deploy.engines.runner import Runner
    from fimaq_deploy.engines.runtimes import Runtime, find_runtime, register

_HOMES = {
    "Option": "options",
    "Runner": "runner",
    "Runtime": "runtimes",
    "find_runtime": "runtimes",
    "load_engine": "load",
    "register": "runtimes",
}

__all__ = ["Option", "Runner", "Runtime", "find_runtime", "load_engine", "register"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fimaq_deploy.engines' has no attribute '{name}'")
    return getattr(import_module(f"fimaq_deploy.engines.{_HOMES[name]}"), name)
