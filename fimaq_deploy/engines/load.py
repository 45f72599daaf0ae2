"""One door to every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import TARGETS, find_target


def load_engine(path: str | Path, target: str | None = None, **options: Any) -> Runner:
    """Load a file to run it here.

    target: which runtime; None is onnxruntime-cpu for `.onnx`, and for `.engine` the one that its name ends with
        (`model.tensorrt.engine`, `model.tensorrt-rtx.engine`), else the only one installed.
    options: `optimisations` and `threads` for ONNX Runtime, `threads` for OpenVINO.

    Raises:
        UserError: unknown target or kind of file, a file that the runtime does not read, or a runtime that cannot run
            here.
    """
    file = Path(path)
    name = find_target(target or guess_target(file)).name
    if name.startswith("onnxruntime-"):
        from fimaq_deploy.engines.onnxruntime import load_onnxruntime

        return load_onnxruntime(file, provider="cuda" if name.endswith("cuda") else "cpu", **options)
    if name == "openvino-cpu":
        from fimaq_deploy.engines.openvino import load_openvino

        return load_openvino(file, **options)
    from fimaq_deploy.engines.tensorrt import load_tensorrt

    return load_tensorrt(file, name, **options)


def guess_target(file: Path) -> str:
    """What runs a file, from its name: see `load_engine`."""
    if file.suffix == ".onnx":
        return "onnxruntime-cpu"
    if file.suffix != ".engine":
        raise UserError(f"{file} is neither a .onnx nor a .engine file: name its target, one of {', '.join(TARGETS)}")
    from fimaq_deploy.engines.tensorrt import FAMILY, not_buildable

    named = [name for name in FAMILY if file.stem.endswith(f".{name}") or file.stem == name]
    installed = [name for name in FAMILY if not_buildable(name) is None]
    return next(iter((*named, *installed)), FAMILY[0])


def availability(target: str) -> tuple[str | None, str | None]:
    """Why an engine for a target cannot be built here, and why it cannot be run here; None where it can.

    ONNX Runtime and OpenVINO build when they load, so both answers are the same.
    """
    name = find_target(target).name
    if name.startswith("onnxruntime-"):
        from fimaq_deploy.engines.onnxruntime import unavailable

        reason = unavailable("cuda" if name.endswith("cuda") else "cpu")
        return reason, reason
    if name == "openvino-cpu":
        from fimaq_deploy.engines import openvino

        reason = openvino.unavailable()
        return reason, reason
    from fimaq_deploy.engines.tensorrt import not_buildable, not_runnable

    return not_buildable(name), not_runnable(name)
