"""What became of each target of a build: its engine, what that was compiled to, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fimaq_deploy.engines.runner import ComputeCapability, EngineFile
from fimaq_deploy.engines.runtimes import Runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.pipeline.exports import Files
from fimaq_deploy.pipeline.steps import Counter
from fimaq_deploy.verify.block_plan import audit_log, kernel_counts
from fimaq_deploy.verify.layer_audit import EngineAudit
from fimaq_deploy.verify.promises import EXPECTED, broken_promises


@dataclass(frozen=True)
class Engine:
    """One target. not_built, not_run: why there is no file for it, and why it cannot run here; None where it can.

    failed: whether its compiler was here and refused the graph.
    compile_seconds: None where nothing had to be compiled. audit: None where its compiler tells no layer plan.
    ships_original: whether the original in half precision is what to ship for it, for it gains nothing from integers.
    """

    runtime: Runtime
    not_built: str | None = None
    not_run: str | None = None
    failed: bool = False
    compile_seconds: float | None = None
    audit: EngineAudit | None = None
    ships_original: bool = False

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return self.not_built or self.not_run


def compile_engines(
    runtimes: Sequence[Runtime], files: Files, count: Counter, sm: int | None = None
) -> tuple[Engine, ...]:
    """Compile both models for each target that has a compiler here.

    sm: the oldest GPU generation that engines are for, such as 89; None is what the compiler takes by itself.
    """
    found = []
    for number, runtime in enumerate(runtimes):
        count(number, len(runtimes), runtime.name)
        found.append(_engine(runtime, files, sm))
    return tuple(found)


def _engine(runtime: Runtime, files: Files, sm: int | None) -> Engine:
    not_built, not_run = runtime.availability()
    ships_original = files.has_yardstick(runtime) and files.ships_original(runtime)
    if runtime.compiler is None:
        return Engine(runtime, None, not_run, ships_original=ships_original)
    if not_built:
        return Engine(runtime, not_built, not_run)
    plan = runtime.layer_plan
    try:
        gpus = _generations(runtime, sm)
        original = runtime.compile(
            files.yardstick_onnx(runtime), files.yardstick(runtime), compute_for=gpus, verbose=plan
        )
        engine = runtime.compile(runtime.onnx(files.folder), runtime.file(files.folder), compute_for=gpus, verbose=plan)
    except UserError as error:
        return Engine(runtime, str(error), not_run, failed=True)
    audit = _audit(runtime, files, engine, original) if plan else None
    return Engine(runtime, None, not_run, compile_seconds=engine.build_seconds, audit=audit)


def _generations(runtime: Runtime, sm: int | None) -> list[ComputeCapability] | None:
    """Those from the oldest on that was asked for.

    Raises:
        UserError: the compiler does not know the oldest.
    """
    if sm is None or runtime.generations is None:
        return None
    known = runtime.generations()
    found = [each for each in known if each >= divmod(sm, 10)]
    if divmod(sm, 10) not in known:  # an engine for later ones would not run on what was asked for
        listed = ", ".join(f"{first}{second}" for first, second in known)
        raise UserError(f"--sm {sm}: {runtime.title} compiles for {listed}")
    return found


def _audit(runtime: Runtime, files: Files, engine: EngineFile, original: EngineFile) -> EngineAudit:
    counts = kernel_counts(audit_log(original.log, read_structure(files.yardstick_onnx(runtime))))
    blocks = audit_log(engine.log, read_structure(runtime.onnx(files.folder)), counts)
    since = None if engine.since is None else f"{engine.since[0]}.{engine.since[1]} or newer"
    return EngineAudit(runtime.name, since, blocks, broken_promises(blocks, EXPECTED))
