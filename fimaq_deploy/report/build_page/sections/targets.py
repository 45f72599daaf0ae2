"""What became of each target."""

from __future__ import annotations

from collections.abc import Sequence

from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Report, TargetStatus


def targets(report: Report) -> Section:
    return Section("targets", "Targets", "", _exhibits(report.targets))


def _exhibits(targets: Sequence[TargetStatus]) -> tuple[Exhibit, ...]:
    if not targets:
        return ()
    lines = tuple((target.name, _built(target), _ran(target)) for target in targets)
    note = " ".join(f"{target.name}: {target.remark}." for target in targets if target.remark)
    return (Exhibit("status", "", note, ("target", "built", "run"), lines),)


def _built(target: TargetStatus) -> str:
    if target.not_built:
        return f"no: {target.not_built}"
    return "yes" if target.compile_seconds is None else f"in {target.compile_seconds:.1f} s"


def _ran(target: TargetStatus) -> str:
    reason = target.not_built or target.not_run
    return f"no: {reason}" if reason else "yes"
