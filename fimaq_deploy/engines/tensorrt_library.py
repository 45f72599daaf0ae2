"""The libraries of the TensorRT family: which are here, what they can do here, and Polygraphy bound to one of them.

Polygraphy serves one of the two libraries at a time and binds it when its `trt` modules are imported; `bind` is the one
door that chooses. What a library's version can do is decided in `fimaq_deploy.engines.versions`.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fimaq_deploy.engines.cuda import ask_driver, no_gpu
from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.engines.versions import OF_RTX, Member, Version, not_for_gpu, parse_version
from fimaq_deploy.target.kernels import in_words

TENSORRT = Member("tensorrt", "tensorrt", extra="tensorrt", oldest=(10, 8), ahead_of_time=False)
RTX = Member("tensorrt-rtx", "tensorrt_rtx", extra="rtx", oldest=(1, 2), ahead_of_time=True)
FAMILY = {member.target: member for member in (TENSORRT, RTX)}
ENGINES = tuple(FAMILY)
_MODULES = ("polygraphy.backend.trt", "polygraphy.backend.tensorrt_rtx", "polygraphy.mod.trt_importer")


def not_buildable(target: str) -> str | None:
    """Why an engine for this member of the family cannot be built here, or None where it can."""
    member = FAMILY[target]
    for package in ("polygraphy", member.module):
        if find_spec(package) is None:
            return f"{package} is not installed: pip install 'fimaq-deploy[{member.extra}]'"
    return None if member.ahead_of_time else _no_fitting_gpu(member)


def not_runnable(target: str) -> str | None:
    """Why an engine of this member of the family cannot be run here, or None where it can."""
    return not_buildable(target) or _no_fitting_gpu(FAMILY[target])


def not_for(target: str, capability: ComputeCapability) -> str | None:
    """Why this member of the family has no engine for a GPU generation, or None where it has."""
    member = FAMILY[target]
    installed = member.ahead_of_time and not_buildable(target) is None
    return not_for_gpu(member, capability, compute_capabilities() if installed else OF_RTX)


def _no_fitting_gpu(member: Member) -> str | None:
    """Engines run on the first GPU."""
    reason = no_gpu()
    if reason:
        return reason
    first = ask_driver().gpus[0]
    problem = not_for(member.target, first.capability)
    return f"{first.name} has compute capability {in_words(first.capability)}: {problem}" if problem else None


def compute_capabilities() -> list[ComputeCapability]:
    """The GPU generations that the installed TensorRT-RTX can compile for, such as (8, 9)."""
    names = bind(RTX).bindings.ComputeCapability.__members__
    numbers = (int(name.removeprefix("SM")) for name in names if name.startswith("SM"))
    return [divmod(number, 10) for number in sorted(numbers)]


@dataclass(frozen=True)
class Library:
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


def bind(member: Member) -> Library:
    """Polygraphy for a library. Its modules are imported anew where they were bound to the other library."""
    config: Any = import_module("polygraphy.config")
    rtx = member == RTX
    if rtx != config.USE_TENSORRT_RTX:
        for name in [name for name in sys.modules if name.startswith(_MODULES)]:
            del sys.modules[name]
        config.USE_TENSORRT_RTX = rtx
    return Library(
        member=member,
        trt=import_module("polygraphy.backend.trt"),
        rtx=import_module("polygraphy.backend.tensorrt_rtx") if rtx else None,
        logger=import_module("polygraphy.logger").G_LOGGER,
        errors=import_module("polygraphy.exception").PolygraphyException,
        bindings=import_module("polygraphy.backend.trt.util").trt,
    )


@contextmanager
def messages(library: Library, verbose: bool = False) -> Iterator[io.StringIO]:
    """What the library says, instead of printing it."""
    log = io.StringIO()
    level = library.logger.EXTRA_VERBOSE if verbose else library.logger.WARNING
    with warnings.catch_warnings(), library.logger.verbosity(level), redirect_stdout(log), redirect_stderr(log):
        warnings.simplefilter("ignore", DeprecationWarning)
        yield log


def why(log: str, error: Exception) -> str:
    """The library's own errors in one line, or what Polygraphy says where there are none."""
    lines = [line.strip().removeprefix("[E] ") for line in log.splitlines() if line.strip().startswith("[E]")]
    telling = [line for line in lines if "node" in line and not line.endswith(("node ---", "]:"))]
    return " ".join("; ".join(dict.fromkeys(telling or lines or [str(error)])).split())[:500]
