"""ONNX files in OpenVINO on the CPU.

OpenVINO 2026 crashes on Swin with a dynamic batch, so the model is compiled for one batch size at a time: the first
call of each size compiles it, and the last few stay compiled.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.contract import KEY, parse_contract
from fimaq_deploy.engines.runner import Array, Dimension, Runner
from fimaq_deploy.errors import UserError

_COMPILED_SIZES = 4
_CONTRACT = ["framework", KEY]  # where it keeps what stands in a file's metadata_props
# Without the precision OpenVINO computes in bfloat16 where the CPU has AMX.
_SETTINGS: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def unavailable() -> str | None:
    """Why OpenVINO cannot run here, or None where it can."""
    if find_spec("openvino") is None:
        return "openvino is not installed: pip install 'fimaq-deploy[openvino]'"
    return None


def load_openvino(path: str | Path, *, threads: int | None = None) -> Runner:
    """A runner for an ONNX file with one image input; its first output is the logits.

    threads: None lets OpenVINO take every core.

    Raises:
        UserError: OpenVINO is not installed, no such file, or not a model that it reads.
    """
    reason = unavailable()
    if reason:
        raise UserError(f"openvino-cpu cannot run {path}: {reason}")
    if not Path(path).is_file():
        raise UserError(f"no ONNX file {path}: name one that exists")
    core, model = _read(Path(path))
    told = model.get_rt_info(_CONTRACT).astype(str) if model.has_rt_info(_CONTRACT) else ""
    if told and parse_contract(told, str(path)).resizing is not None:
        raise UserError(f"{path} resizes images itself, with a filter that OpenVINO ignores: take model.pixels.onnx")
    shape = tuple(_dimension(size) for size in model.input(0).partial_shape)

    @lru_cache(_COMPILED_SIZES)
    def compiled(batch: int) -> Any:
        fixed = model.clone()
        fixed.reshape({0: [batch, *shape[1:]]})
        settings = _SETTINGS | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        return core.compile_model(fixed, "CPU", settings)

    def run(images: Array) -> Array:
        return compiled(len(images))(images)[0].copy()

    def outputs(images: Array) -> dict[str, Array]:
        return {port.get_any_name(): result.copy() for port, result in compiled(len(images))(images).items()}

    dtype = np.uint8 if model.input(0).get_element_type().to_string() in ("u8", "uint8_t") else np.float32
    return Runner("openvino-cpu", shape, run, outputs, dtype)


def _read(path: Path) -> tuple[Any, Any]:
    import openvino

    core = openvino.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path} is not a model that OpenVINO loads: {' '.join(str(error).split())[:300]}") from error


def _dimension(size: Any) -> Dimension:
    return size.get_length() if size.is_static else None
