"""The figures of many reports as series in the order of their builds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.report.figures import plotted
from fimaq_deploy.report.load import REPORT, load_report
from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.timeline.changes import change_points
from fimaq_deploy.report.words import moment_text, number_text

# How much smaller a change is than anybody cares for: a share of the value. Any change of kernels counts.
_SMALL = {"accuracy": 0.001, "speed-up": 0.03, "size": 0.005}


class Figure(NamedTuple):
    """What a series is of. kind: accuracy, speed-up, size or kernels. exact: measuring it again gives the same."""

    kind: str
    title: str
    unit: str
    higher_is_better: bool
    exact: bool


class Point(NamedTuple):
    """One build. interval: 95 %, where it is known. measured_on: which images and labels; empty where nobody says."""

    build: str
    created: str
    value: float
    interval: tuple[float, float] | None
    measured_on: str = ""


@dataclass(frozen=True)
class Change:
    """From the build with this number on. before, after: the means of the two levels.

    moved: whether it was measured on other images or labels than the build before, so that nothing is said to be worse.
    """

    at: int
    before: float
    after: float
    worse: bool
    moved: bool = False


@dataclass(frozen=True)
class Series:
    """One figure of one way to run a model, oldest build first."""

    model: str
    recipe: str
    row: str
    figure: Figure
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        return f"{self.model} with {self.recipe} in {self.row}, {self.figure.title}"

    @property
    def changes(self) -> tuple[Change, ...]:
        values = [point.value for point in self.points]
        found = change_points(values, exact=self.figure.exact)
        edges = [0, *found, len(values)]
        means = [float(np.mean(values[start:end])) for start, end in pairwise(edges)]
        pairs = zip(found, means, means[1:], strict=False)
        return tuple(change for at, old, new in pairs if (change := self._change(at, old, new)) is not None)

    def _change(self, at: int, before: float, after: float) -> Change | None:
        if abs(after - before) <= _SMALL.get(self.figure.kind, 0.0) * abs(before):
            return None
        old, new = (point.measured_on for point in self.points[at - 1 : at + 1])
        moved = bool(old and new) and old != new
        worse = not moved and (after < before) == self.figure.higher_is_better
        return Change(at, before, after, worse, moved)

    def told(self, change: Change) -> str:
        """A change as a sentence."""
        old, new = (number_text(value, self.figure.unit) for value in (change.before, change.after))
        point = self.points[change.at]
        moved = ", evaluated on other images or labels than before" if change.moved else ""
        return f"{self.name}: {old} became {new} with {point.build} ({moment_text(point.created)}){moved}"


@dataclass(frozen=True)
class History:
    """Every series of every model. builds: how many reports it was made from."""

    series: tuple[Series, ...]
    builds: int

    @property
    def worse(self) -> list[str]:
        """Series whose newest change is for the worse, as sentences."""
        last = [(one, one.changes[-1]) for one in self.series if one.changes]
        return [one.told(change) for one, change in last if change.worse]

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "fimaq-deploy/history/1",
            "builds": self.builds,
            "worse": self.worse,
            "series": [
                {
                    "model": one.model,
                    "recipe": one.recipe,
                    "row": one.row,
                    "figure": one.figure._asdict(),
                    "points": [point._asdict() for point in one.points],
                    "changes": [
                        {"at": c.at, "before": c.before, "after": c.after, "worse": c.worse, "moved": c.moved}
                        for c in one.changes
                    ],
                }
                for one in self.series
            ],
        }


def history(paths: str | Path | Sequence[str | Path]) -> History:
    """Read every report below some folders, or reports that are named, and find where their figures change.

    Builds are of one series where model and recipe have the same names, and stand in the order in which they were made.

    Raises:
        UserError: no report there, or one that cannot be read.
    """
    reports = sorted(
        ((load_report(file), str(file.parent)) for file in report_files(paths)), key=lambda pair: pair[0].created
    )
    found: dict[tuple[str, str, str, Figure], list[Point]] = {}
    for report, build in reports:
        for row in report.deployed:
            for figure, value, interval in _figures(report, row):
                key = (report.model.name, str(report.recipe.get("name", "")), row.title, figure)
                found.setdefault(key, []).append(Point(build, report.created, value, interval, _data(report, figure)))
    return History(tuple(Series(*key, tuple(points)) for key, points in found.items()), len(reports))


def _data(report: Report, figure: Figure) -> str:
    """Which images and labels a figure is of; sizes, kernels and times are of none."""
    known = report.data.images_sha256 if figure.kind == "accuracy" else None
    return f"{known} {report.data.labels_sha256}" if known else ""


def report_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Every report below some folders, or that is named.

    Raises:
        UserError: a folder holds none.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    return list(dict.fromkeys(file for path in given for file in _files(Path(path))))


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.rglob(REPORT))
    if not found:
        raise UserError(f"no {REPORT} in {shown(str(path))}: expected builds, or a folder of them")
    return found


def _figures(report: Report, row: Row) -> Iterator[tuple[Figure, float, tuple[float, float] | None]]:
    reading = plotted(report, row)
    if reading is not None and reading.value is not None:
        meaning = reading.meaning
        figure = Figure("accuracy", meaning.title, meaning.unit, meaning.higher_is_better, False)
        yield figure, reading.value, reading.figure.interval
    one = next((latency for latency in row.latency if latency.batch_size == 1), None)
    if one is not None and one.speedup is not None:
        yield Figure("speed-up", "speed-up over full precision", "", True, False), one.speedup, one.speedup_interval
    if row.size_bytes is not None:
        yield Figure("size", "size in MB", "", False, True), row.size_bytes / 1e6, None
    kernels = [sum(block.kernels for block in audit.blocks) for audit in report.audits if audit.target == row.id]
    if kernels:
        yield Figure("kernels", "kernels", "", False, True), float(kernels[0]), None
