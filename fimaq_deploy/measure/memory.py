"""Peak memory of a process that loads one file, runs it, and does nothing else.

The process loads neither torch nor this process's memory; Python and the runtime themselves are included. A GPU's
memory is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from fimaq_deploy.engines.options import THREADS
from fimaq_deploy.engines.runtimes import find_runtime

_SIDE = 224  # of images, where an engine takes any size
_RUNS = 2


def peak_memory_bytes(path: str | Path, target: str, batch: int = 1, threads: int | None = None) -> int | None:
    """Run a file alone and say how much memory was resident at most.

    None where the system does not tell or ends the process, as where memory is short, or a target is registered in no
    module that another process can import.

    Raises:
        RuntimeError: the process failed although this one could load the file.
    """
    runtime = find_runtime(target)
    request = {"path": str(path), "target": target, "home": runtime.module, "batch": batch, "threads": threads}
    command = [sys.executable, "-m", "fimaq_deploy.measure.memory", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if done.returncode < 0:  # a signal: the figure is missing, and what was built is not worse for it
        return None
    if done.returncode:
        raise RuntimeError(f"running {path} alone failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    """That of this process; what it can import, the other one can too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def own_peak_bytes() -> int | None:
    """The peak of this process. Not `ru_maxrss`: on Linux a new process inherits its parent's."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else 1024 * int(line.split()[1])


def _run_alone(path: str, target: str, home: str, batch: int, threads: int | None) -> int | None:
    try:
        import_module(home)
    except ImportError:
        return None
    runtime = find_runtime(target)
    runner = runtime.load(path, **({THREADS.name: threads} if runtime.takes(THREADS) else {}))
    images = np.zeros((batch, *(side or _SIDE for side in runner.input_shape[1:])), runner.dtype)
    for _ in range(_RUNS):
        runner(images)
    return own_peak_bytes()


if __name__ == "__main__":
    print(json.dumps(_run_alone(**json.loads(sys.argv[1]))))
