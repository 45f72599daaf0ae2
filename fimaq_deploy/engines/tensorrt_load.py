"""Loading engines of TensorRT 10, 11 and TensorRT-RTX.

Not run by any test of this project, because it needs a GPU: `load_tensorrt` beyond its refusals. Not covered: weight
streaming, and more than one input or profile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fimaq_deploy.engines.cuda import ask_driver
from fimaq_deploy.engines.refusals import Here, built_with, from_flags, from_log
from fimaq_deploy.engines.runner import Array, Dimension, Runner
from fimaq_deploy.engines.tensorrt_library import FAMILY, Library, bind, messages, not_runnable, why
from fimaq_deploy.engines.tensorrt_session import CudaStream, Session
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import read_manifest


def load_tensorrt(path: str | Path, target: str, *, cuda_graph: bool = False) -> Runner:
    """A runner for an engine file, on the first GPU, with device buffers that are kept between calls.

    cuda_graph: record the kernels of a batch size once and replay them.

    Raises:
        UserError: no such file, no GPU or library here, or an engine of another version, library, platform or GPU.
    """
    reason = not_runnable(target)
    if reason:
        raise UserError(f"{target} cannot run {path}: {reason}")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no engine file {path}: name one that exists")
    library = bind(FAMILY[target])
    engine = _deserialised(library, file)
    # TensorRT-RTX compiles the last kernels for a shape while it runs, and so records by itself.
    itself = cuda_graph and library.member.ahead_of_time
    contexts = (lambda: _recording_context(library, engine)) if itself else engine.create_execution_context
    session = Session(target, library.bindings, engine, CudaStream(), contexts, record=cuda_graph and not itself)

    def run(images: Array) -> Array:
        return next(iter(session(images).values()))

    return Runner(target, tuple(map(_dimension, session.input_shape)), run, session)


def _deserialised(library: Library, file: Path) -> Any:
    """The engine of a file.

    Raises:
        UserError: with what the file is for and what is here, as far as the library or the build's manifest tells.
    """
    first = ask_driver().gpus[0]
    here = Here(library.member.target, str(library.bindings.__version__), first.name, first.capability)
    engine = file.read_bytes()
    manifest = read_manifest(file.parent) or {}
    with messages(library) as log:
        try:
            refused = _refusal(library, engine, here)
            if refused is None:
                return library.trt.engine_from_bytes(engine)
        except library.errors as error:
            said = log.getvalue()
            versions = manifest.get("versions", {}) if file.name in manifest.get("files", {}) else {}
            refused = from_log(said, here) or built_with(versions, here) or why(said, error)
    raise UserError(
        f"{here.target} cannot load {file}: {refused}; build it again here, or run it where it was built for"
    )


def _refusal(library: Library, engine: bytes, here: Here) -> str | None:
    """What TensorRT-RTX says of an engine's header; None where it is valid, or the library has no such check."""
    runtime = library.bindings.Runtime(library.trt.get_trt_logger())
    if not hasattr(runtime, "get_engine_validity"):
        return None
    validity, flags = runtime.get_engine_validity(engine)
    if validity != library.bindings.EngineValidity.INVALID:
        return None
    return from_flags(int(flags), library.bindings.EngineInvalidityDiagnostics.__members__, here)


def _recording_context(library: Library, engine: Any) -> Any:
    """An execution context that captures whole CUDA graphs."""
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = library.bindings.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _dimension(size: Any) -> Dimension:
    return size if isinstance(size, int) and size >= 0 else None
