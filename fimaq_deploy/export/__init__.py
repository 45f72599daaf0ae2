"""From PyTorch modules to ONNX files that runtimes fuse. Importing this package imports neither torch nor onnx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fimaq_deploy.export.inspection import QuantizedTensor, check_grids, integer_weights
    from fimaq_deploy.export.parity import ParityReport, StageParity, compare_stages
    from fimaq_deploy.export.qdq import Traced, convert_fp_onnx, export_fp_onnx, export_onnx, trace

_HOMES = {
    "ParityReport": "parity",
    "QuantizedTensor": "inspection",
    "StageParity": "parity",
    "Traced": "qdq",
    "check_grids": "inspection",
    "compare_stages": "parity",
    "convert_fp_onnx": "qdq",
    "export_fp_onnx": "qdq",
    "export_onnx": "qdq",
    "integer_weights": "inspection",
    "trace": "qdq",
}

__all__ = [
    "ParityReport",
    "QuantizedTensor",
    "StageParity",
    "Traced",
    "check_grids",
    "compare_stages",
    "convert_fp_onnx",
    "export_fp_onnx",
    "export_onnx",
    "integer_weights",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fimaq_deploy.export' has no attribute '{name}'")
    return getattr(import_module(f"fimaq_deploy.export.{_HOMES[name]}"), name)
