"""Which build option a TensorRT library takes, decided from its name, version and enumerations alone.

TensorRT 10 knows strongly typed networks by a flag, 11 knows no others and has lost the precision flags that we never
set. TensorRT-RTX compiles ahead of time: what depends on timing kernels on the GPU that is here has no meaning for it,
and compute capabilities take the place of hardware compatibility.

Tried with TensorRT-RTX 1.7.1. What is said of TensorRT 10 and 11 follows their documentation and was not run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.errors import UserError
from fimaq_deploy.target.kernels import in_words

Version = tuple[int, int]


@dataclass(frozen=True)
class Member:
    """One member of the TensorRT family.

    target: its name here. module, extra: what is imported, and the extra of this package that installs it.
    oldest: the first version with what our graphs use.
    ahead_of_time: whether it compiles without a GPU, for the GPU generations that are named (TensorRT-RTX).
    """

    target: str
    module: str
    extra: str
    oldest: Version
    ahead_of_time: bool


# The first generation that TensorRT takes since 10.5, and those that TensorRT-RTX 1.7 compiles for: neither Hopper
# (9.0) nor Blackwell of the data centre (10.0, 10.3).
OLDEST_OF_TENSORRT: ComputeCapability = (7, 5)
OF_RTX: tuple[ComputeCapability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


@dataclass(frozen=True)
class BuildOptions:
    """What a caller may ask of a build beyond its profile; None is the library's default.

    workspace_bytes: the most scratch memory that a kernel may take.
    timing_cache: a file that keeps kernel timings between builds; it is made where it is missing.
    hardware_compatibility: such as "ampere_plus", for an engine that also runs on other GPUs than the one here.
    """

    workspace_bytes: int | None = None
    timing_cache: str | None = None
    hardware_compatibility: str | None = None


def parse_version(text: str) -> Version:
    """The first two numbers of a version such as "10.13.0.35"."""
    major, minor, *_ = (int("".join(filter(str.isdigit, part)) or 0) for part in (*text.split("."), "0"))
    return major, minor


def check_version(member: Member, version: Version) -> None:
    """Refuse a library that is too old for what our graphs use.

    Raises:
        UserError: names the version that is needed.
    """
    oldest = member.oldest
    if version < oldest:
        raise UserError(
            f"{member.target} {version[0]}.{version[1]} is too old for opset 21 with INT4 and FP16 scales: "
            f"install {oldest[0]}.{oldest[1]} or later"
        )


def check_options(member: Member, options: BuildOptions) -> None:
    """Refuse what a library cannot do.

    Raises:
        UserError: names the option and what takes its place.
    """
    if options.workspace_bytes is not None and options.workspace_bytes < 0:
        raise UserError(f"a workspace of {options.workspace_bytes} bytes: expected a number of at least 0")
    if not member.ahead_of_time:
        return
    target = f"target {member.target}"
    if options.timing_cache is not None:
        raise UserError(f"{target} times no kernels when it compiles: a timing cache is for tensorrt")
    if options.hardware_compatibility is not None:
        raise UserError(f"{target} has no hardware compatibility level: name compute capabilities instead")


def find_level(name: str, levels: Collection[str], version: Version) -> str:
    """The library's own name of a hardware compatibility level.

    levels: what this version has, such as "AMPERE_PLUS".

    Raises:
        UserError: this version has no such level.
    """
    wanted = name.upper().replace("-", "_")
    if wanted not in levels:
        listed = ", ".join(sorted(level.lower() for level in levels))
        raise UserError(
            f"hardware compatibility '{name}': TensorRT {version[0]}.{version[1]} has {listed}; name one of these"
        )
    return wanted


def not_for_gpu(member: Member, capability: ComputeCapability, known: Collection[ComputeCapability]) -> str | None:
    """Why a member has no engine for a GPU generation, or None where it has.

    known: those that the installed TensorRT-RTX compiles for.
    """
    if not member.ahead_of_time:
        oldest = in_words(OLDEST_OF_TENSORRT)
        return None if capability >= OLDEST_OF_TENSORRT else f"it needs compute capability {oldest} or newer"
    return None if capability in known else f"it compiles for {', '.join(map(in_words, sorted(known)))} only"


def passes_strong_typing(version: Version, flags: Collection[str]) -> bool:
    """Whether strong typing must be asked for: 10 has the flag, 11 may know nothing else."""
    return version < (11, 0) or "STRONGLY_TYPED" in flags
