"""Thresholds that were asked for and that nothing could be held to, and what a reader of the others should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fimaq_deploy.report.comparison.builds import Build
from fimaq_deploy.report.comparison.records import Difference, Thresholds
from fimaq_deploy.report.comparison.sameness import hardware_text, labels_unseen, same_hardware
from fimaq_deploy.report.figures import held, judged, outputs
from fimaq_deploy.report.schema import Row

_KINDS = {
    "--max-drop": ("labels", "user"),
    "--max-slowdown": ("latency",),
    "--max-growth": ("size",),
}
_GATES = {"--min-agreement": "agreement", "--min-cosine": "cosine"}


def obstacles(new: Build, baseline: Build, limits: Thresholds, differences: Sequence[Difference]) -> Iterator[str]:
    """Each threshold that was asked for and not applied to a row that the baseline would ship."""
    for option in limits.asked:
        reasons = list(_reasons(new, baseline, option, differences))
        yield from (f"{option} cannot be judged: {reason}" for reason in dict.fromkeys(reasons))


def notes(new: Build, baseline: Build) -> Iterator[str]:
    """What makes a comparison less sharp."""
    if not same_hardware(new, baseline):
        yield f"{baseline.name} was measured on other hardware, so latency is shown and not judged"
    absent = [build.name for build in (new, baseline) if build.predictions is None]
    loose = dict.fromkeys(build.name for build in (new, baseline) if not build.checked)
    if loose:
        yield f"{' and '.join(loose)}: no manifest of a build tells whether the report is what was written"
    if labels_unseen(new, baseline):
        unknown = [build.name for build in (new, baseline) if build.report.data.labels_sha256 is None]
        yield f"{' and '.join(unknown)}: nothing kept tells whether labels are the same, as in builds from before 0.2.0"
    if absent and new.report.data.labelled:
        yield f"{' and '.join(absent)}: no predictions were kept, so accuracy is judged less sharply, unpaired"


def _reasons(new: Build, baseline: Build, option: str, differences: Sequence[Difference]) -> Iterator[str]:
    if option in _GATES:
        yield from _without_gate(new, option)
        return
    judged_rows = {d.row for d in differences if d.of in _KINDS[option] and d.limit is not None}
    yield from (_why_not(new, baseline, row, option) for row in baseline.report.deployed if row.id not in judged_rows)
    if option == "--max-drop":
        yield from _missing(new, baseline, differences)
    if not baseline.report.deployed:
        yield f"nothing to ship was run in {baseline.name}"


def _missing(new: Build, baseline: Build, differences: Sequence[Difference]) -> Iterator[str]:
    """Further figures that the baseline is held to and the new build does not have, such as those of masks."""
    found = {(d.row, d.figure) for d in differences}
    for row in baseline.report.deployed:
        further = held(baseline.report, row, "comparison")[1:]
        absent = [one.title for one in further if (row.id, one.meaning.name) not in found]
        if absent and any(one.row == row.id for one in differences):
            yield f"{row.title} has {' and '.join(absent)} in {baseline.name} and not in {new.name}"


def _without_gate(new: Build, option: str) -> Iterator[str]:
    """A threshold on how close to the original the new build is."""
    found = outputs(new.report)
    if not any(meaning.gate == _GATES[option] for output in found for meaning in output.figures):
        yield f"{', '.join(f'{output.name} is measured as {output.task}' for output in found)}, which has none"
    elif not new.report.deployed:
        yield f"nothing to ship was run in {new.name}"


def _why_not(new: Build, baseline: Build, row: Row, option: str) -> str:
    mine = new.report.row(row.id)
    if mine is None or (mine.not_run and option != "--max-growth"):
        reason = mine.not_run if mine else "it was not asked for"
        return f"{row.title} was run in {baseline.name} and not in {new.name} ({reason})"
    if option == "--max-slowdown" and not same_hardware(new, baseline):
        return f"other hardware, {hardware_text(new)} instead of {hardware_text(baseline)}"
    return {
        "--max-drop": _no_figure(new, baseline, row),
        "--max-slowdown": f"{row.title} has no latency with its interval in both; build the older one again",
        "--max-growth": f"{row.title} has no file in both",
    }[option]


def _no_figure(new: Build, baseline: Build, row: Row) -> str:
    """Why there is nothing to hold to --max-drop."""
    mine = new.report.row(row.id)
    ours, theirs = judged(new.report, mine) if mine else None, judged(baseline.report, row)
    if ours is None or theirs is None:
        wanted = "classes" if outputs(new.report)[0].task == "classes" else "labels that fit the output"
        return f"{row.title} has no accuracy in both; evaluate on images with {wanted}"
    if ours.value is None or theirs.value is None:
        return f"{row.title}: {ours.title} is not finite in both"
    return f"{row.title} has {ours.title} in {new.name} and {theirs.title} in {baseline.name}"
