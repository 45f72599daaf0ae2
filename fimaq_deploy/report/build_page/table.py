"""The rows of a report as text cells, for the terminal and for Markdown alike."""

from __future__ import annotations

from fimaq_deploy.report.schema import Comparison, Report, Row

HEADER = ("", "top-1 %", "top-5 %", "agree %", "logit diff", "ms", "speed-up", "size")


def cells(row: Row) -> tuple[str, ...]:
    """One row in the order of HEADER. The latency is of one image, the speed-up over FP32."""
    if row.not_run is not None:
        return (row.title, "not run", "", "", "", "", "", size_text(row.size_bytes))
    return (
        row.title,
        _percent(row.accuracy and row.accuracy.top1),
        _percent(row.accuracy and row.accuracy.top5),
        _percent(row.comparison and row.comparison.agreement),
        _difference(row.comparison) if row.comparison else "",
        f"{row.latency[0].p50_ms:.2f}" if row.latency else "",
        _speedup(row),
        size_text(row.size_bytes),
    )


def not_run_text(row: Row) -> str:
    return f"not run: {row.not_run}"


def comparison_text(report: Report) -> str:
    """Which row each agreement and logit difference is measured against."""
    titles = {row.id: row.title for row in report.rows}
    pairs = [f"{row.title} with {titles[row.comparison.to]}" for row in report.rows if row.comparison]
    return "; ".join(pairs)


def size_text(size_bytes: int | None) -> str:
    """A file size in kB or MB, powers of ten."""
    if size_bytes is None:
        return ""
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 999_500 else f"{size_bytes / 1e6:.1f} MB"


def times_text(ratio: float) -> str:
    """A speed-up or another ratio."""
    return f"{ratio:.2f}×"


def change_text(drop: float) -> str:
    """Points gained or lost, with a sign unless there is no change."""
    change = round(-drop, 2)
    return f"{change:+.2f}" if change else "0.00"


def points_text(points: float) -> str:
    """As in "1 point" and "0.5 points"."""
    return f"{points:g} point{'' if points == 1 else 's'}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _speedup(row: Row) -> str:
    speedup = row.latency[0].speedup if row.latency else None
    return "" if speedup is None else times_text(speedup)


def _difference(comparison: Comparison) -> str:
    value = comparison.largest_difference
    return "not finite" if value is None else f"{value:.2g}"
