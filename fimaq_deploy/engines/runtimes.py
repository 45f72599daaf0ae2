"""Every runtime by the name of its target: what it reads, takes and can do here, and how it is reached.

Adding one is a file with its loader and one `register(Runtime(Target(...), ...))`. Another package may do that in a
module of its own and name it as an entry point of group `fimaq_deploy.targets`; then every command knows the target.

Importing this module imports no runtime: each is imported by its loader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from fimaq_deploy.engines import onnxruntime, openvino, tensorrt
from fimaq_deploy.engines.options import CUDA_GRAPH, OPTIMISATIONS, THREADS, Option, checked
from fimaq_deploy.engines.runner import ComputeCapability, EngineFile, Runner
from fimaq_deploy.engines.tensorrt_library import RTX, compute_capabilities, not_buildable, not_runnable
from fimaq_deploy.engines.tensorrt_load import load_tensorrt
from fimaq_deploy.errors import UserError
from fimaq_deploy.manifest import check_file
from fimaq_deploy.target import TARGETS, Target, add_target, find_target, load_guests

# What a build writes for every target whose rules ask for nothing else.
ONNX = "model.onnx"
# Is there wherever this package is: a build's reference, and what runs an ONNX file of which nothing else is said.
REFERENCE = "onnxruntime-cpu"

Reason = Callable[[], str | None]
Loader = Callable[..., Runner]


class Compiler(Protocol):
    """Compiles an ONNX file to an engine file. compute_for: the GPU generations, where they can be named."""

    def __call__(
        self, onnx: Path, engine: Path, /, *, compute_for: Sequence[ComputeCapability] | None, verbose: bool
    ) -> EngineFile: ...


@dataclass(frozen=True)
class Runtime:
    """One target and what executes it.

    title: for tables. loader: a path, and the options by name, to a runner. unavailable: why it cannot run here, or
        None where it can.
    options: what its loader takes.
    device: what it computes on. A CPU's rates are measured here, so it has a roofline floor.
    packages: distributions whose versions a report should tell.
    compiler: None where loading an ONNX file is all. unbuildable: why it cannot compile here; None: as `unavailable`.
    generations: the GPU generations that it compiles for; None where it compiles for what is here, or for no GPU.
    suffix: of the files that it runs.
    layer_plan: whether the compiler's verbose log tells the kernels, so that an audit can read them.
    taps: whether it can also return values inside the graph, so that parity can look at every block.
    as_written: whether it computes node by node what a file says, where it has optimisations without them: parity then
        judges every integer.
    triton: the backend of Triton Inference Server that runs its file; none where there is none.
    home: the module to import in a process that does not know the target yet; default: the loader's.
    remark: what to know before choosing it, as a sentence.
    """

    target: Target
    title: str
    loader: Loader
    unavailable: Reason
    options: tuple[Option, ...] = ()
    device: Literal["cpu", "gpu"] = "cpu"
    packages: tuple[str, ...] = ()
    compiler: Compiler | None = None
    unbuildable: Reason | None = None
    generations: Callable[[], Sequence[ComputeCapability]] | None = None
    suffix: str = ".onnx"
    layer_plan: bool = False
    taps: bool = True
    as_written: bool = False
    triton: str = ""
    home: str = ""
    remark: str = ""

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def module(self) -> str:
        return self.home or getattr(self.loader, "func", self.loader).__module__

    def availability(self) -> tuple[str | None, str | None]:
        """Why nothing can be built for it here, and why it cannot run here; None where it can."""
        not_run = self.unavailable()
        return self.unbuildable() if self.unbuildable else not_run, not_run

    def onnx(self, folder: Path) -> Path:
        """The ONNX file of a build that is written for it."""
        return folder / (ONNX if self.target.reads_the_common_file else f"model.{self.name}.onnx")

    def file(self, folder: Path) -> Path:
        """What it runs of a build: that file, or the engine that is compiled from it."""
        return self.onnx(folder) if self.compiler is None else folder / f"model.{self.name}{self.suffix}"

    @property
    def has_floor(self) -> bool:
        """Whether the least time of what it runs is known: the file says what is computed, on rates measured here."""
        return self.device == "cpu" and self.compiler is None

    def takes(self, option: Option) -> bool:
        return option in self.options

    def load(self, path: str | Path, **options: Any) -> Runner:
        """Load a file to run it here. An option of None is not set.

        Raises:
            UserError: an option that it does not take or of another type, a file that it does not read or that is not
                what its build wrote, or it cannot run here.
        """
        check_file(Path(path))
        return self.loader(Path(path), **checked(self.name, self.options, options, _takers()))

    def compile(
        self,
        onnx: str | Path,
        engine: str | Path,
        *,
        compute_for: Sequence[ComputeCapability] | None = None,
        verbose: bool = False,
    ) -> EngineFile:
        """Compile an ONNX file with one image input.

        compute_for: the GPU generations, where they can be named. verbose: keep the compiler's log.

        Raises:
            UserError: there is nothing to compile, it cannot compile here, refuses the file, or the file is not what
                its build wrote.
        """
        check_file(Path(onnx))
        if self.compiler is None:
            raise UserError(f"target {self.name} compiles nothing: load the ONNX file itself")
        return self.compiler(Path(onnx), Path(engine), compute_for=compute_for, verbose=verbose)


RUNTIMES: dict[str, Runtime] = {}


def register(runtime: Runtime) -> Runtime:
    """Make a target known under its name.

    Raises:
        ValueError: the name is taken by another one, or is none.
    """
    if RUNTIMES.get(runtime.name, runtime) != runtime:
        raise ValueError(f"there is a target {runtime.name} already")
    add_target(runtime.target)
    RUNTIMES[runtime.name] = runtime
    return runtime


def find_runtime(name: str) -> Runtime:
    """What executes a target.

    Raises:
        UserError: no target has this name.
    """
    target = find_target(name)
    if target.name not in RUNTIMES:
        raise UserError(f"target '{name}' has rules and no runtime: register one, or name one of {', '.join(RUNTIMES)}")
    return RUNTIMES[target.name]


def every_runtime() -> list[Runtime]:
    """All that are known, those of other packages last."""
    load_guests()
    return list(RUNTIMES.values())


def runtime_packages() -> list[str]:
    """The distributions behind all of them, installed or not."""
    return list(dict.fromkeys(package for runtime in every_runtime() for package in runtime.packages))


def guess_runtime(file: Path) -> Runtime:
    """What runs a file, from its name.

    Of several that read such files: the one that the name ends with (`model.tensorrt.engine`), else the first that is
    installed.

    Raises:
        UserError: nothing reads such a file.
    """
    if file.suffix == Path(ONNX).suffix:
        return RUNTIMES[REFERENCE]
    readers = [runtime for runtime in every_runtime() if runtime.suffix == file.suffix]
    if not readers:
        kinds = " nor a ".join(sorted({runtime.suffix for runtime in RUNTIMES.values()}, reverse=True))
        raise UserError(f"{file} is neither a {kinds} file: name its target, one of {', '.join(RUNTIMES)}")
    named = [runtime for runtime in readers if file.stem == runtime.name or file.stem.endswith(f".{runtime.name}")]
    installed = (runtime for runtime in readers if runtime.availability()[0] is None)
    return next(iter(named), None) or next(installed, readers[0])


def _takers() -> Mapping[str, list[str]]:
    """The targets that take an option, by its name."""
    found: dict[str, list[str]] = {}
    for runtime in RUNTIMES.values():
        for option in runtime.options:
            found.setdefault(option.name, []).append(runtime.name)
    return found


def _onnxruntime(provider: onnxruntime.Provider, title: str, *, as_written: bool, remark: str = "") -> Runtime:
    return Runtime(
        TARGETS[f"onnxruntime-{provider}"],
        title,
        partial(onnxruntime.load_onnxruntime, provider=provider),
        partial(onnxruntime.unavailable, provider),
        options=(OPTIMISATIONS, THREADS),
        device="cpu" if provider == "cpu" else "gpu",
        packages=("onnxruntime", "onnxruntime-gpu"),
        as_written=as_written,
        remark=remark,
        triton="onnxruntime",
    )


def _tensorrt(name: str, title: str, triton: str = "") -> Runtime:
    return Runtime(
        TARGETS[name],
        title,
        partial(load_tensorrt, target=name),
        partial(not_runnable, name),
        options=(CUDA_GRAPH,),
        device="gpu",
        packages=("polygraphy", name),
        compiler=partial(tensorrt.build_engine, target=name),
        unbuildable=partial(not_buildable, name),
        generations=compute_capabilities if name == RTX.target else None,
        suffix=".engine",
        layer_plan=True,
        triton=triton,
    )


_BUILT_IN = (
    _tensorrt("tensorrt", "TensorRT", triton="tensorrt"),
    _tensorrt("tensorrt-rtx", "TensorRT-RTX"),
    _onnxruntime("cpu", "ONNX Runtime CPU", as_written=True),
    _onnxruntime(
        "cuda",
        "ONNX Runtime CUDA",
        as_written=False,
        remark="the CUDA provider has no integer kernel behind Q/DQ and multiplies in floats, slower than without: "
        "the original in half precision is what to ship, or INT4 weights with float activations",
    ),
    Runtime(
        TARGETS["openvino-cpu"],
        "OpenVINO CPU",
        openvino.load_openvino,
        openvino.unavailable,
        options=(THREADS,),
        packages=("openvino",),
        triton="openvino",
    ),
)
for _runtime in _BUILT_IN:
    register(_runtime)
