"""Compile a file for each GPU generation, read what became of it (`block_plan`), and hold that to promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.engines.runtimes import Runtime, every_runtime, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.promises import broken_promises, parse_promises


@dataclass(frozen=True)
class EngineAudit:
    """One engine.

    compute_capability: such as "8.9" or "8.9 or newer", None where it was not said. broken: promises, as sentences.
    """

    target: str
    compute_capability: str | None
    blocks: tuple[BlockPlan, ...]
    broken: tuple[str, ...] = ()


class Audits(tuple[EngineAudit, ...]):
    """The engines of one file. required: the promises that they were held to."""

    file: str
    required: tuple[str, ...]

    def __new__(cls, found: Iterable[EngineAudit], file: str, required: tuple[str, ...]) -> Audits:
        self = super().__new__(cls, found)
        self.file, self.required = file, required
        return self

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/audit/1",
            "file": self.file,
            "required": list(self.required),
            "audits": [asdict(each) for each in self],
        }


def audit(
    path: str | Path,
    target: str,
    *,
    compute_for: Sequence[ComputeCapability] | None = None,
    against: str | Path | None = None,
    require: str | Sequence[str] | None = None,
) -> Audits:
    """Compile an ONNX file for each GPU generation, or once for all of them, and say what became of it.

    compute_for: the GPU generations to compile for one by one; None is one engine for all that the target compiles for.
    against: the yardstick, the full-precision model, compiled in the same way.
    require: names of `PROMISES`, in a list or with commas, whose breaches go to `broken`; None is `EXPECTED`.

    Raises:
        UserError: the target has no layer plan, cannot compile here, or its compiler refuses the file.
    """
    runtime = find_runtime(target)
    if not runtime.layer_plan:
        planned = [one.name for one in every_runtime() if one.layer_plan]
        raise UserError(f"target {target} has no layer plan to audit: expected {' or '.join(planned)}")
    required = parse_promises(require)
    if "no-more-kernels" in required and against is None:
        raise UserError("no-more-kernels compares with the full-precision model: name its file as --against")
    file, original = read_structure(path), None if against is None else read_structure(against)
    found = []
    for capability in [None] if compute_for is None else compute_for:
        alone = None if capability is None else [capability]
        counts = None
        if against is not None and original is not None:
            counts = kernel_counts(audit_log(builder_log(against, runtime, alone), original))
        blocks = audit_log(builder_log(path, runtime, alone), file, counts)
        found.append(EngineAudit(target, _text(capability), blocks, broken_promises(blocks, required)))
    return Audits(found, str(path), required)


def builder_log(path: str | Path, runtime: Runtime, compute_for: Sequence[ComputeCapability] | None) -> str:
    """What the compiler says about a file; the engine is thrown away."""
    with TemporaryDirectory() as folder:
        return runtime.compile(path, Path(folder) / "audit.engine", compute_for=compute_for, verbose=True).log


def _text(capability: ComputeCapability | None) -> str | None:
    return None if capability is None else f"{capability[0]}.{capability[1]}"
