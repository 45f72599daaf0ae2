"""Which engine runs an artifact here: the fastest that this machine runs, by what the build measured.

An engine that is compiled for a GPU which the build's machine lacked comes first, then what was timed, then the rest.
What does not load is passed over, and said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fimaq_deploy.engines.options import THREADS
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import REFERENCE, Runtime, every_runtime, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.runtime.artifact import Artifact


@dataclass(frozen=True)
class Choice:
    """What runs it. why: as a clause. passed_over: what else the artifact holds, and why that does not run here."""

    runtime: Runtime
    runner: Runner
    file: Path
    why: str
    passed_over: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For a log: what runs, why, and what does not."""
        others = "".join(f"; not {one}" for one in self.passed_over)
        return f"{self.runtime.title} runs {self.file.name}: {self.why}{others}"


def choose_engine(artifact: Artifact, target: str | None = None, threads: int | None = None) -> Choice:
    """Load the best engine, or that of the target.

    Raises:
        UserError: unknown target, or nothing in the artifact runs here.
    """
    passed_over: list[str] = []
    for runtime, why in _order(artifact, target):
        file = _file(artifact, runtime)
        problem = _problem(artifact, runtime, file, passive=target is None)
        if problem is None:
            try:
                options = {THREADS.name: threads} if runtime.takes(THREADS) else {}
                return Choice(runtime, runtime.load(file, **options), file, why, tuple(passed_over))
            except UserError as error:
                problem = str(error)
        if problem:
            passed_over.append(f"{runtime.title} ({problem})")
    told = "; ".join(passed_over) or "it holds no file of a known target"
    raise UserError(f"nothing in {artifact.path} runs here: {told}")


def _order(artifact: Artifact, target: str | None) -> list[tuple[Runtime, str]]:
    if target is not None:
        return [(find_runtime(target), "it was asked for")]
    known = {runtime: artifact.latency_ms(runtime.name) for runtime in every_runtime()}
    compiled = [runtime for runtime, ms in known.items() if ms is None and runtime.compiler is not None]
    timed = sorted((ms, runtime.name) for runtime, ms in known.items() if ms is not None)
    rest = sorted((runtime for runtime, ms in known.items() if ms is None and runtime.compiler is None), key=_rank)
    return [
        *((runtime, "it is compiled for a GPU that the build did not have") for runtime in compiled),
        *((find_runtime(name), f"the fastest here by the build's report, {ms:.3g} ms an image") for ms, name in timed),
        *((runtime, "the first that runs here") for runtime in rest),
    ]


def _rank(runtime: Runtime) -> bool:
    """Of what no build timed a GPU comes last: there a file for the CPU is slower than its original."""
    return runtime.device == "gpu"


def _file(artifact: Artifact, runtime: Runtime) -> Path:
    return runtime.file(artifact.path) if artifact.is_folder else artifact.path


def _problem(artifact: Artifact, runtime: Runtime, file: Path, *, passive: bool) -> str | None:
    """Why it is not even tried; None where it is. Empty: it has nothing to do with this artifact."""
    if artifact.contract.resizing is not None and runtime.name != REFERENCE:
        return f"it does not resize as the file says, which is for {REFERENCE}"
    if file.name not in artifact.files or file.suffix != runtime.suffix:
        return "" if passive else f"the artifact holds no {file.name}"
    return runtime.unavailable()
