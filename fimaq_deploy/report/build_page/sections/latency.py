"""How long a batch takes."""

from __future__ import annotations

from collections.abc import Iterable

from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.build_page.verdict import clear_speedup, shipped
from fimaq_deploy.report.page.parts import Exhibit, Section, compact
from fimaq_deploy.report.schema import Latency, Report, Row
from fimaq_deploy.report.words import times_text

_ABOUT = "All engines are timed in turns in one run; a speed-up is the median of the turns' own ratios."


def latency(report: Report) -> Section:
    return Section("latency", "Latency", _ABOUT, _exhibits(report))


def _exhibits(report: Report) -> tuple[Exhibit, ...]:
    rows = [row for row in report.rows if row.latency]
    if not rows:
        return ()
    floor = any(latency.floor_ms is not None for row in rows for latency in row.latency)
    dashed = " Dashed: the least time that the machine's measured rates allow (roofline)." if floor else ""
    exhibit = Exhibit(
        "latency-by-batch",
        _latency_title(report),
        f"Time for an image: the median, with a line to the 90th percentile, cut where it is far off.{dashed} "
        "Lower is better.",
        ("", "batch", "p50 ms", "p90 ms", "p99 ms", "floor ms", "images / s", "speed-up", "over"),
        tuple(line for row in rows for line in _latency_lines(report, row)),
        paint=charts.latency_by_batch(report),
        height=280,
    )
    return (compact(exhibit),)


def _latency_title(report: Report) -> str:
    row = shipped(report)
    found = [latency for latency in row.latency if latency.speedup] if row else []
    if row is None or not found:
        return "Latency by batch size"
    told = [
        f"{times_text(latency.speedup or 1)} at batch {latency.batch_size}"
        for latency in found
        if clear_speedup(latency)
    ]
    unclear = " and ".join(str(latency.batch_size) for latency in found if not clear_speedup(latency))
    parts = [*told, f"no clear difference at batch {unclear}"] if unclear else told
    return f"{row.title} over {report.title_of(found[0].ratio_to)}: {', '.join(parts)}"


def _latency_lines(report: Report, row: Row) -> Iterable[tuple[str, ...]]:
    for latency in row.latency:
        yield (
            row.title,
            str(latency.batch_size),
            f"{latency.p50_ms:.2f}",
            f"{latency.p90_ms:.2f}",
            f"{latency.p99_ms:.2f}",
            "" if latency.floor_ms is None else f"{latency.floor_ms:.3g}",
            f"{latency.images_per_second:,.0f}",
            _speedup_text(latency),
            "" if latency.ratio_to is None or latency.speedup is None else report.title_of(latency.ratio_to),
        )


def _speedup_text(latency: Latency) -> str:
    if latency.speedup is None:
        return ""
    low, high = latency.speedup_interval or (None, None)
    return times_text(latency.speedup) + (f" ({low:.2f} to {high:.2f})" if low and high else "")
