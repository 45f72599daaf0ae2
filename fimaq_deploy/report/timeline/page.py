"""The page of a history: a chart for each figure of each model, its levels and where they change."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fimaq_deploy.files import write_whole
from fimaq_deploy.report.page.canvas import BAD, FAINT, GOOD, SERIES, name_axes
from fimaq_deploy.report.page.html import render
from fimaq_deploy.report.page.parts import Exhibit, Page, Section
from fimaq_deploy.report.timeline.records import Change, History, Series
from fimaq_deploy.report.words import moment_text, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_history(found: History, path: Path, command: str) -> None:
    """Write the page. command: what makes it again. Raises UserError where it cannot be written."""
    write_whole(path, render(history_page(found, command)).encode())


def history_page(found: History, command: str) -> Page:
    """Everything that the page shows."""
    changes = sum(len(one.changes) for one in found.series)
    newest = max((point.created for one in found.series for point in one.points), default="")
    return Page(
        kind="History",
        heading=f"{found.builds} builds",
        status="The newest change is for the worse" if found.worse else "No newest change is for the worse",
        headline=f"{len(found.series)} figures of {found.builds} builds, with {changes} changes of their level.",
        created=moment_text(newest),
        command=command,
        tone="bad" if found.worse else "good",
        reasons=found.worse,
        sections=_sections(found),
    )


def _sections(found: History) -> list[Section]:
    models = dict.fromkeys((one.model, one.recipe) for one in found.series)
    return [
        Section(
            f"model-{number}",
            f"{model} with {recipe}",
            "A point is a build, a bar its 95 % interval, a line a level; a level changes where chance would not.",
            tuple(
                _exhibit(one, f"model-{number}-{place}")
                for place, one in enumerate(one for one in found.series if (one.model, one.recipe) == (model, recipe))
            ),
        )
        for number, (model, recipe) in enumerate(models)
    ]


def _exhibit(series: Series, name: str) -> Exhibit:
    unit, changes = series.figure.unit, series.changes
    last = series.points[-1].value
    seen = "no change" if not changes else f"{len(changes)} change{'s' if len(changes) > 1 else ''}"
    told = {change.at: _word(change) for change in changes}
    return Exhibit(
        name,
        f"{series.row}, {series.figure.title}: {number_text(last, unit)} now, {seen}",
        " ".join(f"{series.told(change)}." for change in changes),
        ("build", "made", series.figure.title, "change"),
        tuple(
            (point.build, moment_text(point.created), number_text(point.value, unit), told.get(number, ""))
            for number, point in enumerate(series.points)
        ),
        tuple(told),
        paint=_paint(series),
        height=210,
    )


def _word(change: Change) -> str:
    return "other images or labels" if change.moved else "worse" if change.worse else "better"


def _paint(series: Series) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        places = range(1, len(series.points) + 1)
        for place, point in zip(places, series.points, strict=True):
            if point.interval is not None:
                axes.vlines(place, *point.interval, color=SERIES[0], linewidth=1.4, alpha=0.4)
        axes.plot(list(places), [point.value for point in series.points], color=FAINT, linewidth=1)
        axes.scatter(list(places), [point.value for point in series.points], s=26, color=SERIES[0], zorder=3)
        edges = [0, *(change.at for change in series.changes), len(series.points)]
        for start, end in pairwise(edges):
            level = sum(point.value for point in series.points[start:end]) / max(end - start, 1)
            axes.hlines(level, start + 0.6, end + 0.4, color=SERIES[1], linewidth=2)
        for change in series.changes:
            axes.axvline(
                change.at + 0.5,
                color=FAINT if change.moved else BAD if change.worse else GOOD,
                linewidth=1.4,
                linestyle="--",
            )
        axes.set_xlim(0.5, len(series.points) + 0.5)
        name_axes(axes, "build, oldest first", series.figure.title)

    return paint
