"""What is free: of the machine, of a container, and under the limit of the process."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fimaq_deploy.calibration import memory
from fimaq_deploy.calibration.memory import free_host_bytes, resident_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="this system has no /proc")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 MiB available whose control group is /build."""
    for name, folder in (("_PROC", tmp_path / "proc"), ("_CGROUPS", tmp_path / "groups")):
        monkeypatch.setattr(memory, name, folder)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable: 8192 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/build\n")
    (tmp_path / "proc" / "self" / "status").write_text("VmRSS: 1024 kB\nVmData: 0 kB\nVmSize: 0 kB\n")
    (tmp_path / "groups" / "build").mkdir(parents=True)
    return tmp_path


def limit(folder: Path, most: str, taken: int, spare: int = 0) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {spare}\n")


def test_the_least_of_what_there_is_counts(machine: Path) -> None:
    assert free_host_bytes() == 8 * 2**20 and resident_bytes() == 2**20
    limit(machine / "groups" / "build", "max", 5)
    assert free_host_bytes() == 8 * 2**20
    limit(machine / "groups" / "build", str(4 * 2**20), 2**20, spare=2**19)
    assert free_host_bytes() == 4 * 2**20 - 2**20 + 2**19
    limit(machine / "groups", str(2**20), 2**19)
    assert free_host_bytes() == 2**19, "the group above is tighter"
    limit(machine / "groups", str(2**20), 2**22)
    assert free_host_bytes() == 0


def test_where_nothing_tells_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PROC", "_CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path)
    assert free_host_bytes() is None and resident_bytes() == 0


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_process_counts(kind: int) -> None:
    code = (
        "import resource, sys; from fimaq_deploy.calibration.memory import free_host_bytes as free\n"
        f"resource.setrlimit({kind}, (2**30, 2**30)); print(free())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**30


def test_of_this_machine() -> None:
    free = free_host_bytes()
    assert free is not None and 0 < free < 2**50
    assert 2**20 < resident_bytes() < 2**40
