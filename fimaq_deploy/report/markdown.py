"""`report.md`: the report as text for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fimaq_deploy.report.schema import Report, Row, TargetStatus
from fimaq_deploy.report.table import HEADER, cells, comparison_text, not_run_text
from fimaq_deploy.report.verdict import verdict


def to_markdown(report: Report) -> str:
    """Headline, table of rows, targets, reconstruction, environment and the command that reproduces the build."""
    sections = (
        f"# {report.model.name}, {report.recipe['name']}",
        verdict(report),
        _table(HEADER, map(_row, report.rows)),
        _notes(report),
        _targets(report),
        _blocks(report),
        _environment(report),
        f"## Reproduce\n\n```bash\n{report.command}\n```",
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---:") -> str:
    lines = [header, ["---"] + [rule] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _row(row: Row) -> Sequence[str]:
    found = cells(row)
    return found if row.not_run is None else (row.title, not_run_text(row), *[""] * (len(found) - 3), found[-1])


def _notes(report: Report) -> str:
    data = report.data
    labels = "" if data.labelled else " They have no labels, so accuracy is not known."
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in data.notes)
    compared = comparison_text(report)
    return (
        f"Calibrated on {data.calibration_images} images ({data.calibration}), evaluated on "
        f"{data.evaluation_images} ({data.evaluation}).{labels}{notes} "
        "Latency is the median for one image, measured in turns; speed-up is over FP32 in ONNX Runtime."
        + (f" Agreement and logit difference compare {compared}." if compared else "")
    )


def _targets(report: Report) -> str:
    lines = [(target.name, _built(target), _ran(target)) for target in report.targets]
    return "## Targets\n\n" + _table(("target", "built", "run"), lines, "---")


def _built(target: TargetStatus) -> str:
    if target.not_built:
        return f"no: {target.not_built}"
    return "yes" if target.compile_seconds is None else f"in {target.compile_seconds:.1f} s"


def _ran(target: TargetStatus) -> str:
    reason = target.not_built or target.not_run
    return f"no: {reason}" if reason else "yes"


def _blocks(report: Report) -> str:
    if not report.blocks:
        return ""
    lines = [
        (
            block.name,
            f"{block.loss_before:.3g}",
            f"{block.loss_after:.3g}",
            str(block.iterations),
            f"{block.seconds:.1f}",
        )
        for block in report.blocks
    ]
    header = ("block", "error before", "error after", "iterations", "seconds")
    return (
        "## Reconstruction\n\nSquared error of each block's output relative to the output's power, before and after "
        "learning.\n\n" + _table(header, lines)
    )


def _environment(report: Report) -> str:
    machine = report.environment
    gpu = f"{machine.gpu}, driver {machine.driver}" if machine.gpu else "none"
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    lines = (
        ("processor", f"{machine.cpu}, {machine.cores} cores"),
        ("GPU", gpu),
        ("system", f"{machine.platform}, Python {machine.python}"),
        ("packages", packages),
        ("seed", str(report.seed)),
        ("seconds", ", ".join(f"{step.name} {step.seconds:.1f}" for step in report.steps)),
    )
    return "## Environment\n\n" + _table(("", ""), lines, "---")
