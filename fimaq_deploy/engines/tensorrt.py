"""TensorRT 10, 11 and TensorRT-RTX through Polygraphy: building engines.

Networks are strongly typed: precision is what the ONNX file says, no builder flag changes it. TensorRT-RTX compiles
without a GPU, for the compute capabilities that are named; TensorRT builds only on the GPU that will run the engine.

Not run by any test of this project, because it needs a GPU and TensorRT 10 or 11: `build_engine` for target `tensorrt`,
with its timing cache, hardware compatibility and its wheel's Python API.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from fimaq_deploy.engines.interruptible import interruptible
from fimaq_deploy.engines.runner import ComputeCapability, EngineFile
from fimaq_deploy.engines.tensorrt_library import (
    FAMILY,
    RTX,
    TENSORRT,
    Library,
    bind,
    compute_capabilities,
    messages,
    not_buildable,
    why,
)
from fimaq_deploy.engines.versions import (
    BuildOptions,
    check_options,
    check_version,
    find_level,
    passes_strong_typing,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole
from fimaq_deploy.target.kernels import in_words

_OLDEST: ComputeCapability = (0, 0)
_AMPERE: ComputeCapability = (8, 0)


@dataclass(frozen=True)
class BatchProfile:
    """The batch sizes that an engine accepts (minimum to maximum) and the one that it is tuned for."""

    minimum: int = 1
    optimum: int = 8
    maximum: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UserError(
                f"batch profile {self.minimum}, {self.optimum}, {self.maximum}: "
                "expected 1 <= minimum <= optimum <= maximum"
            )


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path,
    target: str,
    *,
    batch: BatchProfile | None = None,
    compute_for: Sequence[ComputeCapability] | None = None,
    options: BuildOptions | None = None,
    verbose: bool = False,
) -> EngineFile:
    """Compile an ONNX file with one image input.

    batch: for a dynamic batch dimension; None is `BatchProfile()`.
    compute_for: the GPU generations of a TensorRT-RTX engine; None is all from Ampere on, so the engine is portable.
        Turing (7.5) takes no INT4, and has no integer kernel for a patch convolution as other tools write it: an engine
        that serves it too would have none at all. A file with FP8 is for 8.9 or newer, one with FP4 for 12.0.
    options: workspace, timing cache and hardware compatibility.
    verbose: keep the builder's whole log, which holds the compiled layer plan.

    Raises:
        UserError: the library is not here or too old, the file is missing or not ONNX, the library refuses the graph or
            an option, or the engine cannot be written.
    """
    reason = not_buildable(target)
    if reason:
        raise UserError(f"no {target} engine can be built here: {reason}")
    if not Path(onnx_path).is_file():
        raise UserError(f"no ONNX file {onnx_path}: name one that exists")
    asked = options or BuildOptions()
    check_options(FAMILY[target], asked)
    library = bind(FAMILY[target])
    check_version(library.member, library.version)
    config = _config_options(library, compute_for, asked)
    started = time.perf_counter()
    with messages(library, verbose) as log:
        engine, oldest = interruptible(
            lambda stop: _compile(
                library, Path(onnx_path), batch or BatchProfile(), config, asked.timing_cache, log, stop
            )
        )
    seconds = time.perf_counter() - started
    write_whole(Path(engine_path), memoryview(engine))
    told, size = log.getvalue() if verbose else "", len(memoryview(engine))
    return EngineFile(Path(engine_path), target, size, seconds, told, oldest)


def _config_options(
    library: Library, compute_for: Sequence[ComputeCapability] | None, asked: BuildOptions
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if asked.workspace_bytes is not None:
        options["memory_pool_limits"] = {library.bindings.MemoryPoolType.WORKSPACE: asked.workspace_bytes}
    if asked.timing_cache is not None:
        options["load_timing_cache"] = asked.timing_cache
    if asked.hardware_compatibility is not None:
        levels = library.bindings.HardwareCompatibilityLevel.__members__
        level = find_level(asked.hardware_compatibility, levels.keys(), library.version)
        options["hardware_compatibility_level"] = levels[level]
    if library.member.ahead_of_time:
        options["compute_capabilities"] = _known_capabilities(compute_for)
    elif compute_for is not None:
        own, other = library.member.target, RTX.target
        raise UserError(f"target {own} compiles for the GPU that is here: compute capabilities are for {other}")
    return options


def _known_capabilities(wanted: Sequence[ComputeCapability] | None) -> list[ComputeCapability]:
    known = compute_capabilities()
    unknown = [capability for capability in wanted or () if capability not in known]
    if unknown:
        listed = ", ".join(map(in_words, known))
        raise UserError(
            f"compute capability {in_words(unknown[0])}: this TensorRT-RTX compiles for {listed}; "
            f"name one of these, or use target {TENSORRT.target} on that GPU"
        )
    return list(wanted) if wanted else [capability for capability in known if capability >= _AMPERE]


def _compile(
    library: Library,
    path: Path,
    batch: BatchProfile,
    options: dict[str, Any],
    timing_cache: str | None,
    log: io.StringIO,
    stop: Event,
) -> tuple[Any, ComputeCapability | None]:
    """The engine, and the oldest GPU generation that it is for."""
    flags = library.bindings.NetworkDefinitionCreationFlag.__members__
    try:
        typed = passes_strong_typing(library.version, flags.keys())
        built = library.trt.network_from_onnx_path(str(path), strongly_typed=typed)
        oldest = None
        if library.member.ahead_of_time:
            fitting = _of_its_types(built[1], options["compute_capabilities"])
            options, oldest = {**options, "compute_capabilities": fitting}, min(fitting)
        profile = _profile(library, built[1], batch, path)
        create: Any = library.rtx.CreateConfigRTX if library.rtx else library.trt.CreateConfig
        detailed = library.bindings.ProfilingVerbosity.DETAILED
        monitor = _monitor(library, stop)
        config = create(profiles=[profile], profiling_verbosity=detailed, progress_monitor=monitor, **options)
        return library.trt.engine_bytes_from_network(built, config=config, save_timing_cache=timing_cache), oldest
    except library.errors as error:
        raise UserError(f"{library.member.target} cannot compile {path}: {why(log.getvalue(), error)}") from error


# The first GPUs that multiply a type of fewer than 16 bits, as the library names it.
_SINCE: dict[str, ComputeCapability] = {"FP8": (8, 9), "FP4": (12, 0)}


def _of_its_types(network: Any, capabilities: Sequence[Any]) -> list[Any]:
    """The GPU generations among some that have what a network computes in.

    Raises:
        UserError: none of them has.
    """
    layers = (network.get_layer(number) for number in range(network.num_layers))
    found = {str(layer.get_output(0).dtype).rpartition(".")[2] for layer in layers if layer.num_outputs}
    needed = {name: since for name, since in _SINCE.items() if name in found}
    least = max(needed.values(), default=_OLDEST)
    fitting = [capability for capability in capabilities if tuple(capability) >= least]
    if not fitting:
        name = max(needed, key=lambda name: needed[name])
        raise UserError(
            f"compute capability {in_words(capabilities[-1])}: the file multiplies {name}, which needs "
            f"{in_words(least)} or newer"
        )
    return fitting


def _monitor(library: Library, stop: Event) -> Any:
    """What the compiler asks after each of its steps whether to go on."""

    class Monitor(library.bindings.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            library.bindings.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            return

        def phase_finish(self, name: str) -> None:
            return

        def step_complete(self, name: str, step: int) -> bool:
            return not stop.is_set()

    return Monitor()


def _profile(library: Library, network: Any, batch: BatchProfile, path: Path) -> Any:
    if network.num_inputs != 1:
        raise UserError(f"{path} has {network.num_inputs} inputs: expected one batch of images")
    images = network.get_input(0)
    sizes = tuple(images.shape)[1:]
    if -1 in sizes:
        raise UserError(f"{path}: input {images.name} has dynamic image sizes {sizes}: only the batch may be dynamic")
    first = images.shape[0]
    low, best, high = (batch.minimum, batch.optimum, batch.maximum) if first == -1 else (first,) * 3
    return library.trt.Profile().add(images.name, (low, *sizes), (best, *sizes), (high, *sizes))
