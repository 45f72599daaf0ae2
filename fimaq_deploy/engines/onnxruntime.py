"""ONNX files in ONNX Runtime, on the CPU or through CUDA.

The CUDA provider has no integer kernel behind Q/DQ: it dequantizes and multiplies in floats (1.31, measured).

With all optimisations off a session computes node by node what the file says: the parity reference. With them on it is
the deployment, where Q/DQ around a MatMul becomes an integer kernel.
"""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fimaq_deploy.engines.cuda import no_gpu
from fimaq_deploy.engines.provider_libraries import why_not_loaded
from fimaq_deploy.engines.runner import Array, Dimension, Runner
from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = Literal["cpu", "cuda"]

_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def unavailable(provider: Provider) -> str | None:
    """Why this provider cannot run here, or None where it can."""
    try:
        import onnxruntime as ort
    except ImportError:
        return "onnxruntime is not installed: pip install onnxruntime-gpu (or onnxruntime)"
    if _PROVIDERS[provider] not in ort.get_available_providers():
        return f"this onnxruntime has no {_PROVIDERS[provider]}: install onnxruntime-gpu"
    if provider == "cuda":
        return _no_cuda()
    return None


def _no_cuda() -> str | None:
    """The provider may be compiled in without a driver, a device or the CUDA libraries."""
    return no_gpu() or why_not_loaded("cuda")


def _preload() -> None:
    """Load the CUDA libraries that pip installed, which the linker does not find. What fails shows in the session."""
    import onnxruntime as ort

    with redirect_stdout(io.StringIO()), suppress(Exception):
        ort.preload_dlls()


def open_session(
    path: str | Path,
    *,
    optimisations: bool = True,
    provider: Provider = "cpu",
    threads: int | None = None,
    save_optimised: Path | None = None,
) -> ort.InferenceSession:
    """A session for a file.

    optimisations: False computes the graph as written.
    threads: for the operators of one run; None lets ONNX Runtime take every physical core.
    save_optimised: where to write the graph that the session runs; None does not.

    Raises:
        UserError: no such file, not an ONNX model, or a provider that cannot run here.
    """
    import onnxruntime as ort

    reason = unavailable(provider)
    if reason:
        raise UserError(f"onnxruntime-{provider} cannot run {path}: {reason}")
    if not Path(path).is_file():
        raise UserError(f"no ONNX file {path}: name one that exists")
    if provider == "cuda":
        _preload()
    options = _options(optimisations, threads, save_optimised)
    providers = list(dict.fromkeys([_PROVIDERS[provider], _PROVIDERS["cpu"]]))
    try:
        try:
            session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            if not (optimisations and "float8" in str(error)):
                raise
            # It fuses a product of 8-bit floats into an integer one, which refuses them (1.31): leave Q/DQ as it is.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime's exceptions share no base class
        reason = " ".join(str(error).split())[:300]
        if "NOT_IMPLEMENTED" in reason:  # of an operator that it knows by its name and types
            reason += f": {ort.__version__} has no kernel for it at this opset; take a newer one, or export at opset 21"
        raise UserError(f"{path} is not a model that ONNX Runtime loads: {reason}") from error
    if _PROVIDERS[provider] not in session.get_providers():
        raise UserError(
            f"onnxruntime-{provider} cannot run {path}: the provider failed to start; see its message above"
        )
    return session


def _options(optimisations: bool, threads: int | None, save_optimised: Path | None) -> Any:
    import onnxruntime as ort

    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimisations else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # In a float Swin, hidden tokens weigh e^-100: denormal numbers, a fifth of its time. The first session of a process
    # decides for its main thread.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # INT4 weights times floats, as the file says. The default, 4, quantizes the activations to 8 bits on the way: other
    # numbers, and slower for the many rows that an image has (1.31, AVX-512).
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if save_optimised is not None:
        options.optimized_model_filepath = str(save_optimised)
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def optimised_operators(path: str | Path) -> Counter[str]:
    """How many nodes of each operator the optimised graph of a file has on the CPU.

    Raises:
        UserError: no such file, or not an ONNX model.
    """
    import onnx

    with TemporaryDirectory() as folder:
        saved = Path(folder) / "optimised.onnx"
        open_session(path, threads=1, save_optimised=saved)
        return Counter(node.op_type for node in onnx.load(saved).graph.node)


def load_onnxruntime(
    path: str | Path, *, optimisations: bool = True, provider: Provider = "cpu", threads: int | None = None
) -> Runner:
    """A runner for an ONNX file with one image input; its first output is the logits. Arguments: see `open_session`."""
    session = open_session(path, optimisations=optimisations, provider=provider, threads=threads)
    (images,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(batch: Array) -> Array:
        (result,) = session.run(names[:1], {images.name: batch})
        return result

    def outputs(batch: Array) -> dict[str, Array]:
        return dict(zip(names, session.run(names, {images.name: batch}), strict=True))

    dtype = np.uint8 if images.type == "tensor(uint8)" else np.float32
    return Runner(f"onnxruntime-{provider}", tuple(map(_dimension, images.shape)), run, outputs, dtype)


def _dimension(size: int | str | None) -> Dimension:
    return size if isinstance(size, int) else None
