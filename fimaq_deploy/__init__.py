"""Quantize vision transformers on the grid that the engine executes, and deploy them.

    import fimaq_deploy as fd

    model = fd.load_model("swin_digits")
    quantized = fd.quantize(model, images, fd.Recipe.load("w4a8"))
    fd.export_onnx(quantized, "model.onnx")

Importing this package loads neither torch nor onnx: each name is fetched from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fimaq_deploy.errors import without_builder
from fimaq_deploy.version import __version__

if TYPE_CHECKING:
    from fimaq_deploy.calibration.quantization import quantize
    from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
    from fimaq_deploy.engines.load import load_engine
    from fimaq_deploy.errors import UserError
    from fimaq_deploy.export.pixels import embed_preprocessing
    from fimaq_deploy.export.qdq import export_onnx
    from fimaq_deploy.graph.rules import lint
    from fimaq_deploy.measure.accuracy import evaluate
    from fimaq_deploy.measure.benchmark import bench
    from fimaq_deploy.models.inside import splice
    from fimaq_deploy.models.load import load_model
    from fimaq_deploy.packaging.packages import package
    from fimaq_deploy.packaging.unpacking import unpack
    from fimaq_deploy.pipeline.builds import BuildResult, build
    from fimaq_deploy.pipeline.sweeps import sweep
    from fimaq_deploy.recipe.recipe import Recipe
    from fimaq_deploy.report.comparison.judge import compare
    from fimaq_deploy.report.timeline.records import history
    from fimaq_deploy.runtime.answers import predict
    from fimaq_deploy.runtime.objects import Detector, Segmenter
    from fimaq_deploy.runtime.predictor import Classifier, Encoder, Predictor
    from fimaq_deploy.runtime.verification import verify_artifact
    from fimaq_deploy.serving.server import serve
    from fimaq_deploy.target.kernels import Kernel
    from fimaq_deploy.target.table import TARGETS, Target
    from fimaq_deploy.verify.block_parity import parity
    from fimaq_deploy.verify.layer_audit import audit

_HOMES = {
    "BuildResult": "pipeline.builds",
    "Classifier": "runtime.predictor",
    "Detector": "runtime.objects",
    "Encoder": "runtime.predictor",
    "Predictor": "runtime.predictor",
    "QuantizedModel": "calibration.quantized_model",
    "Recipe": "recipe.recipe",
    "Segmenter": "runtime.objects",
    "Kernel": "target.kernels",
    "TARGETS": "target.table",
    "Target": "target.table",
    "UserError": "errors",
    "audit": "verify.layer_audit",
    "bench": "measure.benchmark",
    "build": "pipeline.builds",
    "compare": "report.comparison.judge",
    "embed_preprocessing": "export.pixels",
    "evaluate": "measure.accuracy",
    "export_onnx": "export.qdq",
    "history": "report.timeline.records",
    "lint": "graph.rules",
    "load_engine": "engines.load",
    "load_model": "models.load",
    "load_quantized": "calibration.quantized_model",
    "package": "packaging.packages",
    "parity": "verify.block_parity",
    "predict": "runtime.answers",
    "quantize": "calibration.quantization",
    "serve": "serving.server",
    "splice": "models.inside",
    "sweep": "pipeline.sweeps",
    "unpack": "packaging.unpacking",
    "verify_artifact": "runtime.verification",
}

__all__ = [
    "TARGETS",
    "BuildResult",
    "Classifier",
    "Detector",
    "Encoder",
    "Kernel",
    "Predictor",
    "QuantizedModel",
    "Recipe",
    "Segmenter",
    "Target",
    "UserError",
    "__version__",
    "audit",
    "bench",
    "build",
    "compare",
    "embed_preprocessing",
    "evaluate",
    "export_onnx",
    "history",
    "lint",
    "load_engine",
    "load_model",
    "load_quantized",
    "package",
    "parity",
    "predict",
    "quantize",
    "serve",
    "splice",
    "sweep",
    "unpack",
    "verify_artifact",
]


if not TYPE_CHECKING:  # a type checker knows the names above and finds a misspelt one

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'fimaq_deploy' has no attribute '{name}'")
        try:
            value = getattr(import_module(f"fimaq_deploy.{_HOMES[name]}"), name)
        except ModuleNotFoundError as error:
            told = without_builder(error)
            if told is None:
                raise
            raise ImportError(f"fimaq_deploy.{name}: {told}", name=error.name) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
