"""Which of ONNX Runtime's provider libraries load here, and what is missing for those that do not.

They are tried in a process of their own, for a library that was loaded cannot be unloaded, and one that does not fit
may end the process. As a session does, it first loads the CUDA libraries that were installed as Python packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

_SECONDS = 60
_TRY = """
import contextlib, ctypes, io, json, pathlib
import onnxruntime
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
    getattr(onnxruntime, "preload_dlls", lambda: None)()
found = {}
for file in sorted((pathlib.Path(onnxruntime.__file__).parent / "capi").glob("*onnxruntime_providers_*")):
    try:
        ctypes.CDLL(str(file))
        found[file.name] = None
    except OSError as error:
        found[file.name] = str(error)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class ProviderLibrary:
    """One provider's library, such as that of "cuda". missing: what keeps it from loading, None where it loads."""

    provider: str
    missing: str | None


@cache
def provider_libraries() -> tuple[ProviderLibrary, ...]:
    """Every one that the installed ONNX Runtime has; none where it is not installed or does not start. Asked once."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        found = json.loads(tried.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return ()
    return libraries_of(found.items())


def libraries_of(found: Iterable[tuple[str, str | None]]) -> tuple[ProviderLibrary, ...]:
    """From file names and what loading each of them said. What all of them share is none of its own."""
    named = ((file.partition("providers_")[2].partition(".")[0], said) for file, said in found)
    return tuple(ProviderLibrary(name, said and _missing(said)) for name, said in named if name != "shared")


def why_not_loaded(provider: str) -> str | None:
    """What keeps a provider's library from loading, or None where it loads or there is no such file."""
    return next((one.missing for one in provider_libraries() if one.provider == provider), None)


def _missing(said: str) -> str:
    """The linker's words without the part that is the same for all: "libcublas.so.13: cannot open …"."""
    library, _, rest = said.partition(": ")
    return f"{library} is missing" if rest.startswith("cannot open shared object file") else " ".join(said.split())
