"""Runtimes: building, loading and timing engines. Importing this package imports no runtime."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.engines.load import availability, load_engine
    from fimaq_deploy.engines.runner import Runner

_HOMES = {"Runner": "runner", "availability": "load", "load_engine": "load"}

__all__ = ["Runner", "availability", "load_engine"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fimaq_deploy.engines' has no attribute '{name}'")
    return getattr(import_module(f"fimaq_deploy.engines.{_HOMES[name]}"), name)
