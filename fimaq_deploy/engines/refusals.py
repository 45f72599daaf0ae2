"""Why a library of the TensorRT family refuses an engine file, in one line: what the file is for, and what is here.

TensorRT-RTX looks at the file's header and returns flags; TensorRT 10 and 11 say it in their log. What is said there
follows their documentation and messages that users have reported, and was not run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.target.kernels import in_words


@dataclass(frozen=True)
class Here:
    """What an engine meets: the target, its library's version, and the GPU with its generation where there is one."""

    target: str
    version: str
    gpu: str = ""
    capability: ComputeCapability | None = None

    @property
    def device(self) -> str:
        name = self.gpu or "the GPU here"
        return f"{name} ({in_words(self.capability)})" if self.capability else name


# In the order of what to tell where several are set: a file that is none has no version.
_FLAGS = {
    "MALFORMED_ENGINE": "it is damaged, or no engine of {target} {version}",
    "VERSION_MISMATCH": "it was built by another version than {target} {version}",
    "UNSUPPORTED_CC": "it was not compiled for {device}",
    "OLD_CUDA_DRIVER": "the NVIDIA driver here is older than it needs: update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime here is older than it needs: update it",
    "INSUFFICIENT_GPU_MEMORY": "{device} has less memory than it needs",
    "CUDA_ERROR": "CUDA does not start here",
}

# TensorRT's own words. `expecting` is what is here, `got` what the file was built for.
_SAYINGS = (
    (r"expecting compute ([\d.]+) got compute ([\d.]+)", "it was compiled for compute capability {1}, expected {0}"),
    (r"expecting library version ([\d.]+) got ([\d.]+)", "it was built by TensorRT {1}, expected {0}"),
    (r"[Pp]latform specific tag mismatch", "it was built on another operating system or processor"),
    (r"[Vv]ersion tag does not match", "it was built by another version than {target} {version}"),
    (r"[Mm]agic tag does not match", "it is damaged, or no engine of {target} {version}"),
    (r"Target GPU SM (\d+) is not supported", "this version has no kernels for compute capability SM {0}"),
)


def from_flags(flags: int, members: Mapping[str, Any], here: Here) -> str | None:
    """From the flags that TensorRT-RTX's check of a header sets; None where it sets none that are known.

    members: its enumeration of them, by name.
    """
    told = [text for name, text in _FLAGS.items() if name in members and flags & int(members[name])]
    return _filled(told[0], (), here) if told else None


def from_log(log: str, here: Here) -> str | None:
    """From what TensorRT logged; None where it is none of the known reasons."""
    for pattern, text in _SAYINGS:
        found = re.search(pattern, log)
        if found:
            return _filled(text, found.groups(), here)
    return None


def built_with(versions: Mapping[str, object], here: Here) -> str | None:
    """From the versions that a build's manifest names: None where it was this one, or is not said."""
    was = versions.get(here.target)
    return None if was in (None, here.version) else f"it was built by {here.target} {was}, expected {here.version}"


def _filled(text: str, found: Collection[str], here: Here) -> str:
    return text.format(*found, target=here.target, version=here.version, device=here.device)
