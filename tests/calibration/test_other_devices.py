"""Everything that learns and judges, on a device that is not the host, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.own_process import SUITES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_of_the_host_meets_the_device() -> None:
    assert "test_second_device.py" in {path.name for path in SUITES}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, SUITES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
