"""The rows of a report as text cells, for the terminal and for Markdown alike."""

from __future__ import annotations

from typing import NamedTuple

from fimaq_deploy.report.figures import outputs, own_readings, readings
from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.words import number_text, size_text, times_text

_LAST = ("ms", "speed-up", "size")


class _Column(NamedTuple):
    """A figure of an output; of the user's own where the output is None."""

    output: str | None
    figure: str
    head: str


def header(report: Report) -> tuple[str, ...]:
    """The heads of `cells`: what is measured of the outputs, then latency of one image, speed-up and size."""
    return ("", *(column.head for column in _columns(report)), *_LAST)


def cells(report: Report, row: Row) -> tuple[str, ...]:
    """One row in the order of `header`. The speed-up is over full precision."""
    columns = _columns(report)
    if row.not_run is not None:
        return (row.title, *_not_run(len(columns) + len(_LAST) - 1), size_text(row.size_bytes))
    found = {(one.output.name if one.output else None, one.meaning.name): one for one in readings(report, row)}
    figures = [found.get((column.output, column.figure)) for column in columns]
    return (
        row.title,
        *("" if one is None else number_text(one.value, one.meaning.unit) for one in figures),
        f"{row.latency[0].p50_ms:.2f}" if row.latency else "",
        _speedup(row),
        size_text(row.size_bytes),
    )


def not_run_text(row: Row) -> str:
    return f"not run: {row.not_run}"


def _columns(report: Report) -> list[_Column]:
    """The main output's figures that belong in a table, the user's own, and the headline of every other output."""
    main, *others = outputs(report)
    own = [_Column(None, one.meaning.name, one.title) for one in own_readings(report.baseline)]
    first = [_Column(main.name, m.name, _head(m.title, m.unit)) for m in main.figures if m.column]
    more = [
        _Column(output.name, m.name, _head(f"{output.name}: {m.title}", m.unit))
        for output in others
        for m in output.figures
        if m.headline
    ]
    return [*own, *first, *more]


def _head(title: str, unit: str) -> str:
    return f"{title} {unit}".strip()


def _not_run(count: int) -> tuple[str, ...]:
    return ("not run", *("",) * (count - 1))


def _speedup(row: Row) -> str:
    speedup = row.latency[0].speedup if row.latency else None
    return "" if speedup is None else times_text(speedup)
