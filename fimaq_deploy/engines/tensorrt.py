"""TensorRT 10, 11 and TensorRT-RTX through Polygraphy: building, loading and running engines.

Networks are strongly typed: precision is what the ONNX file says, no builder flag changes it. TensorRT-RTX compiles
without a GPU, for the compute capabilities that are named; TensorRT builds only on the GPU that will run the engine.

Polygraphy serves one of the two libraries at a time and binds it when its `trt` modules are imported; `_polygraphy` is
the one door that chooses.

What a library's version can do is decided in `fimaq_deploy.engines.versions`.

Not run by any test of this project, because it needs a GPU or TensorRT 10 or 11:
- `load_tensorrt` beyond its refusals: Polygraphy's runner with its device buffers, and CUDA graphs on TensorRT-RTX;
- `build_engine` for target `tensorrt`: timing cache, hardware compatibility and its wheel's Python API.

Not covered: weight streaming, CUDA graphs on TensorRT 10 and 11, and more than one input or profile.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

from fimaq_deploy.engines.cuda import ask_driver, no_gpu
from fimaq_deploy.engines.interruptible import interruptible
from fimaq_deploy.engines.runner import Array, ComputeCapability, Dimension, EngineFile, Runner
from fimaq_deploy.engines.versions import (
    OF_RTX,
    BuildOptions,
    Member,
    Version,
    check_options,
    check_version,
    find_level,
    generation,
    not_for_gpu,
    parse_version,
    passes_strong_typing,
)
from fimaq_deploy.errors import UserError
from fimaq_deploy.files import write_whole

TENSORRT = Member("tensorrt", "tensorrt", extra="tensorrt", oldest=(10, 8), ahead_of_time=False)
RTX = Member("tensorrt-rtx", "tensorrt_rtx", extra="rtx", oldest=(1, 2), ahead_of_time=True)
_FAMILY = {member.target: member for member in (TENSORRT, RTX)}
ENGINES = tuple(_FAMILY)
_MODULES = ("polygraphy.backend.trt", "polygraphy.backend.tensorrt_rtx", "polygraphy.mod.trt_importer")

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


def not_buildable(target: str) -> str | None:
    """Why an engine for this member of the family cannot be built here, or None where it can."""
    member = _FAMILY[target]
    for package in ("polygraphy", member.module):
        if find_spec(package) is None:
            return f"{package} is not installed: pip install 'fimaq-deploy[{member.extra}]'"
    return None if member.ahead_of_time else _no_fitting_gpu(member)


def not_runnable(target: str) -> str | None:
    """Why an engine of this member of the family cannot be run here, or None where it can."""
    return not_buildable(target) or _no_fitting_gpu(_FAMILY[target])


def not_for(target: str, capability: ComputeCapability) -> str | None:
    """Why this member of the family has no engine for a GPU generation, or None where it has."""
    member = _FAMILY[target]
    installed = member.ahead_of_time and not_buildable(target) is None
    return not_for_gpu(member, capability, compute_capabilities() if installed else OF_RTX)


def _no_fitting_gpu(member: Member) -> str | None:
    """Engines run on the first GPU."""
    reason = no_gpu()
    if reason:
        return reason
    first = ask_driver().gpus[0]
    problem = not_for(member.target, first.capability)
    return f"{first.name} has compute capability {generation(first.capability)}: {problem}" if problem else None


def compute_capabilities() -> list[ComputeCapability]:
    """The GPU generations that the installed TensorRT-RTX can compile for, such as (8, 9)."""
    names = _polygraphy(RTX).bindings.ComputeCapability.__members__
    numbers = (int(name.removeprefix("SM")) for name in names if name.startswith("SM"))
    return [divmod(number, 10) for number in sorted(numbers)]


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
        that serves it too would have none at all.
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
    check_options(_FAMILY[target], asked)
    library = _polygraphy(_FAMILY[target])
    check_version(library.member, library.version)
    config = _config_options(library, compute_for, asked)
    started = time.perf_counter()
    with _messages(library, verbose) as log:
        engine = interruptible(
            lambda stop: _compile(
                library, Path(onnx_path), batch or BatchProfile(), config, asked.timing_cache, log, stop
            )
        )
    seconds = time.perf_counter() - started
    write_whole(Path(engine_path), memoryview(engine))
    return EngineFile(Path(engine_path), target, len(memoryview(engine)), seconds, log.getvalue() if verbose else "")


@dataclass(frozen=True)
class _Polygraphy:
    """Polygraphy bound to one of the libraries, and that library."""

    member: Member
    trt: Any
    rtx: Any
    logger: Any
    errors: type[Exception]
    bindings: Any

    @property
    def version(self) -> Version:
        return parse_version(str(self.bindings.__version__))


def _polygraphy(member: Member) -> _Polygraphy:
    """Polygraphy for a library. Its modules are imported anew where they were bound to the other library."""
    config: Any = import_module("polygraphy.config")
    rtx = member == RTX
    if rtx != config.USE_TENSORRT_RTX:
        for name in [name for name in sys.modules if name.startswith(_MODULES)]:
            del sys.modules[name]
        config.USE_TENSORRT_RTX = rtx
    return _Polygraphy(
        member=member,
        trt=import_module("polygraphy.backend.trt"),
        rtx=import_module("polygraphy.backend.tensorrt_rtx") if rtx else None,
        logger=import_module("polygraphy.logger").G_LOGGER,
        errors=import_module("polygraphy.exception").PolygraphyException,
        bindings=import_module("polygraphy.backend.trt.util").trt,
    )


@contextmanager
def _messages(library: _Polygraphy, verbose: bool = False) -> Iterator[io.StringIO]:
    """What the library says, instead of printing it."""
    log = io.StringIO()
    level = library.logger.EXTRA_VERBOSE if verbose else library.logger.WARNING
    with warnings.catch_warnings(), library.logger.verbosity(level), redirect_stdout(log), redirect_stderr(log):
        warnings.simplefilter("ignore", DeprecationWarning)
        yield log


def _config_options(
    library: _Polygraphy, compute_for: Sequence[ComputeCapability] | None, asked: BuildOptions
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
        listed = ", ".join(map(generation, known))
        raise UserError(
            f"compute capability {generation(unknown[0])}: this TensorRT-RTX compiles for {listed}; "
            f"name one of these, or use target {TENSORRT.target} on that GPU"
        )
    return list(wanted) if wanted else [capability for capability in known if capability >= _AMPERE]


def _compile(
    library: _Polygraphy,
    path: Path,
    batch: BatchProfile,
    options: dict[str, Any],
    timing_cache: str | None,
    log: io.StringIO,
    stop: Event,
) -> Any:
    flags = library.bindings.NetworkDefinitionCreationFlag.__members__
    try:
        typed = passes_strong_typing(library.version, flags.keys())
        built = library.trt.network_from_onnx_path(str(path), strongly_typed=typed)
        profile = _profile(library, built[1], batch, path)
        create: Any = library.rtx.CreateConfigRTX if library.rtx else library.trt.CreateConfig
        detailed = library.bindings.ProfilingVerbosity.DETAILED
        monitor = _monitor(library, stop)
        config = create(profiles=[profile], profiling_verbosity=detailed, progress_monitor=monitor, **options)
        return library.trt.engine_bytes_from_network(built, config=config, save_timing_cache=timing_cache)
    except library.errors as error:
        raise UserError(f"{library.member.target} cannot compile {path}: {_why(log.getvalue(), error)}") from error


def _monitor(library: _Polygraphy, stop: Event) -> Any:
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


def _profile(library: _Polygraphy, network: Any, batch: BatchProfile, path: Path) -> Any:
    if network.num_inputs != 1:
        raise UserError(f"{path} has {network.num_inputs} inputs: expected one batch of images")
    images = network.get_input(0)
    sizes = tuple(images.shape)[1:]
    if -1 in sizes:
        raise UserError(f"{path}: input {images.name} has dynamic image sizes {sizes}: only the batch may be dynamic")
    first = images.shape[0]
    low, best, high = (batch.minimum, batch.optimum, batch.maximum) if first == -1 else (first,) * 3
    return library.trt.Profile().add(images.name, (low, *sizes), (best, *sizes), (high, *sizes))


def _why(log: str, error: Exception) -> str:
    """The library's own errors in one line, or what Polygraphy says where there are none."""
    lines = [line.strip().removeprefix("[E] ") for line in log.splitlines() if line.strip().startswith("[E]")]
    telling = [line for line in lines if "node" in line and not line.endswith(("node ---", "]:"))]
    return " ".join("; ".join(dict.fromkeys(telling or lines or [str(error)])).split())[:500]


def load_tensorrt(path: str | Path, target: str, *, cuda_graph: bool = False) -> Runner:
    """A runner for an engine file, on the first GPU, with device buffers that are kept between calls.

    cuda_graph: record the kernels of a batch size once and replay them: TensorRT-RTX alone does it by itself.

    Raises:
        UserError: no such file, no GPU or library here, or an engine of another version, library or GPU.
    """
    reason = not_runnable(target)
    if reason:
        raise UserError(f"{target} cannot run {path}: {reason}")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no engine file {path}: name one that exists")
    if cuda_graph and not _FAMILY[target].ahead_of_time:
        raise UserError(f"target {target} records no CUDA graphs here: load it without, or use {RTX.target}")
    library = _polygraphy(_FAMILY[target])
    with _messages(library) as log:
        try:
            engine = library.trt.engine_from_bytes(file.read_bytes())
            active = library.trt.TrtRunner(_recording_context(library, engine) if cuda_graph else engine)
            active.activate()
        except library.errors as error:
            raise UserError(
                f"{target} cannot load {path}: {_why(log.getvalue(), error)}; build it again here"
            ) from error
    ((name, (_, shape)),) = active.get_input_metadata().items()

    def outputs(images: Array) -> dict[str, Array]:
        found = active.infer({name: images}, copy_outputs_to_host=True)
        return {name: result.copy() for name, result in found.items()}

    def run(images: Array) -> Array:
        return next(iter(outputs(images).values()))

    return Runner(target, tuple(map(_dimension, shape)), run, outputs)


def _recording_context(library: _Polygraphy, engine: Any) -> Any:
    """An execution context that captures whole CUDA graphs."""
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = library.bindings.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _dimension(size: Any) -> Dimension:
    return size if isinstance(size, int) and size >= 0 else None
