"""What a build amounts to, in a sentence or two, and whether it keeps its promises."""

from __future__ import annotations

from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.table import size_text


def verdict(report: Report) -> str:
    """The headline: accuracy, speed and size of what would be shipped, against the full-precision original."""
    row = next(iter(report.deployed), None)
    if row is None:
        return f"{report.model.name} with recipe {report.recipe['name']}: nothing that can be deployed was run here."
    parts = [part for part in (_accuracy(report, row), _speed(report, row), _size(report, row)) if part]
    return f"{report.model.name} with recipe {report.recipe['name']}, {row.title}: {', '.join(parts)}."


def failures(report: Report, max_drop: float | None) -> list[str]:
    """Each promise that the build broke, as a sentence.

    A compiler that refused the graph, and each deployed row that loses more than `max_drop` points of top-1.
    """
    refused = [f"{target.name}: {target.not_built}" for target in report.targets if target.failed]
    drops = [(row, report.drop(row)) for row in report.deployed if max_drop is not None]
    lost = [
        f"{row.title} loses {drop:.2f} points of top-1, more than the {max_drop:g} allowed"
        for row, drop in drops
        if drop is not None and max_drop is not None and drop > max_drop
    ]
    return refused + lost


def _accuracy(report: Report, row: Row) -> str:
    drop = report.drop(row)
    if drop is None or row.accuracy is None:
        agreement = row.comparison.agreement if row.comparison else None
        return "" if agreement is None else f"{agreement:.2f} % of predictions as its reference"
    return f"{row.accuracy.top1:.2f} % top-1 ({-drop:+.2f} points)"


def _speed(report: Report, row: Row) -> str:
    speedup = row.latency[0].speedup if row.latency else None
    return f"{speedup:.2f} times the speed of FP32" if speedup else ""


def _size(report: Report, row: Row) -> str:
    original = report.row("onnx-fp32")
    if original is None or not original.size_bytes or not row.size_bytes:
        return ""
    return f"{size_text(row.size_bytes)} instead of {size_text(original.size_bytes)}"
