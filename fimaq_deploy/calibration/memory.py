"""How much memory is free for this process on the host: of the machine, of its container, and under its own limit.

Not covered: systems without /proc, and a machine that others fill meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Control groups of version 2 and 1: the limit, what is taken, and the line of memory.stat that could be given back.
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def free_host_bytes() -> int | None:
    """The least of what the machine, a container and `ulimit` leave; None where nothing tells."""
    return min((*_of_machine(), *_of_groups(), *_of_process()), default=None)


def resident_bytes() -> int:
    """What this process has in memory now; 0 where nothing tells."""
    return next(_numbers(_PROC / "self/status", "VmRSS:"), 0)


def _of_machine() -> Iterator[int]:
    yield from _numbers(_PROC / "meminfo", "MemAvailable:")


def _of_groups() -> Iterator[int]:
    """Of this group and those above it, where they are seen."""
    try:
        own = [line.rpartition(":")[2] for line in (_PROC / "self/cgroup").read_text().splitlines()]
    except OSError:
        return
    folders = {folder for name in own for folder in (Path(name.strip("/")), *Path(name.strip("/")).parents)}
    for folder in sorted(folders | {Path()}):
        for limit, taken, spare in _LIMITS:
            yield from _left(_CGROUPS / folder / limit, _CGROUPS / folder / taken, spare)


def _left(limit: Path, taken: Path, spare: str) -> Iterator[int]:
    try:
        most, now = int(limit.read_text()), int(taken.read_text())
    except (OSError, ValueError):  # not here, or "max"
        return
    given_back = next(_numbers(taken.parent / "memory.stat", spare, unit=1), 0)
    if most < 2**62:
        yield max(0, most - now + given_back)


def _of_process() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    for kind, line in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            yield from (max(0, most - now) for now in _numbers(_PROC / "self/status", line))


def _numbers(path: Path, name: str, unit: int = 1024) -> Iterator[int]:
    """The bytes in the line of a file that begins with a name."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    yield from (unit * int(line.split()[1]) for line in lines if line.split()[:1] == [name])
