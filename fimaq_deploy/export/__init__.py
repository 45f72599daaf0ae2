"""From PyTorch modules to ONNX files that runtimes fuse. Importing this package imports neither torch nor onnx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.export.qdq import Traced, convert_fp_onnx, export_fp_onnx, export_onnx, trace

__all__ = ["Traced", "convert_fp_onnx", "export_fp_onnx", "export_onnx", "trace"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fimaq_deploy.export' has no attribute '{name}'")
    return getattr(import_module("fimaq_deploy.export.qdq"), name)
