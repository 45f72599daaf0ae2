"""One door to every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import find_runtime, guess_runtime


def load_engine(path: str | Path, target: str | None = None, **options: Any) -> Runner:
    """Load a file to run it here.

    target: which runtime; None is onnxruntime-cpu for `.onnx`, and for `.engine` the one that its name ends with
        (`model.tensorrt.engine`, `model.tensorrt-rtx.engine`), else the first that is installed.
    options: `optimisations` and `threads` for ONNX Runtime, `threads` for OpenVINO, `cuda_graph` for TensorRT and
        TensorRT-RTX; one of None is not set.

    Raises:
        UserError: unknown target, option or kind of file, a file that the runtime does not read or that is not what
            its build wrote, or a runtime that cannot run here.
    """
    runtime = guess_runtime(Path(path)) if target is None else find_runtime(target)
    return runtime.load(path, **options)
