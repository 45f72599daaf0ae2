"""From PyTorch modules to ONNX files that runtimes fuse. Importing this package imports neither torch nor onnx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.export.inspection import QuantizedTensor, check_grids, integer_weights
    from fimaq_deploy.export.parity import ParityReport, StageParity, compare_stages
    from fimaq_deploy.export.qdq import export_fp_onnx, export_onnx

_HOMES = {
    "ParityReport": "parity",
    "QuantizedTensor": "inspection",
    "StageParity": "parity",
    "check_grids": "inspection",
    "compare_stages": "parity",
    "export_fp_onnx": "qdq",
    "export_onnx": "qdq",
    "integer_weights": "inspection",
}

__all__ = [
    "ParityReport",
    "QuantizedTensor",
    "StageParity",
    "check_grids",
    "compare_stages",
    "export_fp_onnx",
    "export_onnx",
    "integer_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fimaq_deploy.export' has no attribute '{name}'")
    return getattr(import_module(f"fimaq_deploy.export.{_HOMES[name]}"), name)
