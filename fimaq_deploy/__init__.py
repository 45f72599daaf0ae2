"""Quantize ViT, DeiT and Swin on the grid that the engine executes, and deploy them.

    import fimaq_deploy as fd

    model = fd.load_model("swin_digits")
    quantized = fd.quantize(model, images, fd.Recipe.load("w4a8"), target="onnxruntime-cpu")
    fd.export_onnx(quantized, "model.onnx")

Importing this package loads neither torch nor onnx: each name is fetched from its module when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.build import BuildResult, build
    from fimaq_deploy.calibration.quantize import QuantizedModel, load_quantized, quantize
    from fimaq_deploy.engines import load_engine
    from fimaq_deploy.errors import UserError
    from fimaq_deploy.evaluate import evaluate
    from fimaq_deploy.export import export_onnx
    from fimaq_deploy.models import load_model
    from fimaq_deploy.recipe import Recipe
    from fimaq_deploy.target import TARGETS, Target

__version__ = "0.1.0"

_HOMES = {
    "BuildResult": "build",
    "QuantizedModel": "calibration",
    "Recipe": "recipe",
    "TARGETS": "target",
    "Target": "target",
    "UserError": "errors",
    "build": "build",
    "evaluate": "evaluate",
    "export_onnx": "export",
    "load_engine": "engines",
    "load_model": "models",
    "load_quantized": "calibration",
    "quantize": "calibration",
}

__all__ = [
    "TARGETS",
    "BuildResult",
    "QuantizedModel",
    "Recipe",
    "Target",
    "UserError",
    "__version__",
    "build",
    "evaluate",
    "export_onnx",
    "load_engine",
    "load_model",
    "load_quantized",
    "quantize",
]


class _Package(ModuleType):
    """Keeps `fimaq_deploy.build` and `.evaluate` functions: importing the modules of those names would hide them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fimaq_deploy' has no attribute '{name}'")
    value = getattr(import_module(f"fimaq_deploy.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
