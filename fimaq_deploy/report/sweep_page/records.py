"""`sweep.json`: what a sweep built, as data, and what follows from it: the leaderboard and the Pareto front.

Cells are timed minutes apart, so their milliseconds are not comparable as they are: a machine's speed drifts. What each
cell measured in turns is its speed-up over full precision. So a cell's milliseconds here are those of its model in full
precision, the median over the model's cells, over its own speed-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from fimaq_deploy.report.figures import headlines, outputs, plotted
from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.words import value_text

SCHEMA: Final = "fimaq-deploy/sweep/1"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ranked(_Part):
    """The figure that a line is ranked by: against labels or the user's own, else the one against the original."""

    title: str
    unit: str = ""
    value: float
    higher_is_better: bool = True

    @property
    def gain(self) -> float:
        """Higher is better."""
        return self.value if self.higher_is_better else -self.value

    @property
    def axis(self) -> str:
        """What it is, with its unit."""
        return ", ".join(part for part in (self.title, self.unit) if part)

    @property
    def text(self) -> str:
        """As in "93.03 % top-1"."""
        return f"{value_text(self.value, self.unit)} {self.title}"


class Line(_Part):
    """One row of a cell's report, as far as a sweep compares it. Latency is that of its smallest batch."""

    id: str
    title: str
    not_run: str | None = None
    top1: float | None = None
    interval: tuple[float, float] | None = None
    drop: float | None = Field(default=None, description="Points of top-1 lost against the original.")
    closeness: str | None = Field(default=None, description="The figure of each output against the original.")
    ranked: Ranked | None = Field(default=None, description="Null where nothing was measured, and before 0.2.0.")
    p50_ms: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    size_bytes: int | None = None

    @property
    def figure(self) -> Ranked | None:
        """What it is ranked by; of a sweep before 0.2.0 its top-1."""
        if self.ranked or self.top1 is None:
            return self.ranked
        return Ranked(title="top-1", unit="%", value=self.top1)


class Cell(_Part):
    """One build. Its folder is beside sweep.json and has its name."""

    name: str
    model: str
    recipe: str
    targets: list[str]
    identity: str = Field(description="Hash of all that decides what is built; a cell of another identity is stale.")
    size_budget: float | None = Field(default=None, description="Of the recipe auto, in megabytes of model.onnx.")
    speed_budget: float | None = Field(default=None, description="Of the recipe auto, times as fast as in floats.")
    state: Literal["waiting", "done", "failed"] = "waiting"
    error: str | None = Field(default=None, description="Why it failed.")
    failures: list[str] = Field(default=[], description="Gates that the build missed, as sentences.")
    seconds: float | None = None
    images: int | None = Field(default=None, description="That it was evaluated on.")
    original: Line | None = Field(
        default=None, description="The full-precision model in the runtime that speed-ups refer to."
    )
    shipped: list[Line] = []


class Sweep(_Part):
    """Everything that a sweep found."""

    schema_version: Literal["fimaq-deploy/sweep/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    created: str = Field(description="UTC, ISO 8601, when it was last written.")
    command: str = Field(description="What runs it again, or goes on with it.")
    machine: str
    cells: list[Cell]

    def to_json(self) -> str:
        """Indented JSON that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def with_cell(self, cell: Cell, created: str) -> Sweep:
        """With one cell replaced by its new state."""
        cells = [cell if other.name == cell.name else other for other in self.cells]
        return self.model_copy(update={"cells": cells, "created": created})

    @property
    def budgets(self) -> list[str]:
        """What each cell was held to, as in "0.25 MB" or "1.5×"; empty for one with a recipe of its own."""
        return [
            f"{cell.size_budget:g} MB"
            if cell.size_budget is not None
            else f"{cell.speed_budget:g}×"
            if cell.speed_budget is not None
            else ""
            for cell in self.cells
        ]

    @property
    def failed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state == "failed"]

    @property
    def missed(self) -> list[str]:
        """Gates that builds missed, each with its cell."""
        return [f"{cell.name}: {failure}" for cell in self.cells for failure in cell.failures]


class Cost(NamedTuple):
    """A cost with its interval; one that is exact has none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """One line of the leaderboard. cost: milliseconds, see this module's docstring; on_front: see `pareto`."""

    cell: Cell
    line: Line
    cost: Cost | None
    on_front: bool = False

    @property
    def milliseconds(self) -> float | None:
        return self.cost.value if self.cost else None

    @property
    def gain(self) -> float | None:
        return self.line.figure.gain if self.line.figure else None


def finished_cell(cell: Cell, report: Report, failures: Sequence[str], seconds: float) -> Cell:
    """A cell whose build has ended well."""
    reference = next((row.latency[0].ratio_to for row in report.rows if row.latency and row.latency[0].ratio_to), "")
    original = report.row(reference or "") or report.row("onnx-fp32")
    return cell.model_copy(
        update={
            "state": "done",
            "error": None,
            "failures": list(failures),
            "seconds": seconds,
            "images": report.data.evaluation_images,
            "original": _line(report, original) if original else None,
            "shipped": [_line(report, row) for row in report.rows if row.deployed],
        }
    )


def leaderboard(sweep: Sweep) -> list[Place]:
    """Every row to ship, the most accurate first, then the fastest, then the smallest.

    What has another figure stands behind, ranked by that: a cosine is no top-1.
    """
    base = _full_precision_ms(sweep)
    places = [Place(cell, line, _cost(line, base.get(cell.model))) for cell in sweep.cells for line in cell.shipped]
    return [place for group in by_figure(places).values() for place in _ranked(group)]


def by_figure(places: Sequence[Place]) -> dict[str, list[Place]]:
    """Those that one figure ranks together, by its title; last, under no title, those that nothing was measured of."""
    found: dict[str, list[Place]] = {}
    for place in sorted(places, key=lambda place: place.line.figure is None):
        found.setdefault(place.line.figure.title if place.line.figure else "", []).append(place)
    return found


def _ranked(places: Sequence[Place]) -> list[Place]:
    front = pareto([(place.cost, place.gain) for place in places])
    return sorted((replace(place, on_front=on) for place, on in zip(places, front, strict=True)), key=_rank)


def pareto(options: Sequence[tuple[Cost | None, float | None]]) -> list[bool]:
    """Which of some (cost, gain) are worth having; an unknown cost or gain never is.

    One that gains less has to be clearly cheaper, beyond both intervals, than every one that gains more: else the front
    would be a picture of the noise. Of equal gains the cheapest is worth having.
    """
    known = [(cost, gain) for cost, gain in options if cost is not None and gain is not None]
    return [
        cost is not None and gain is not None and not any(_beats(other, (cost, gain)) for other in known)
        for cost, gain in options
    ]


def _beats(other: tuple[Cost, float], own: tuple[Cost, float]) -> bool:
    (other_cost, other_gain), (cost, gain) = other, own
    if other_gain == gain:
        return other_cost.value < cost.value
    return other_gain > gain and other_cost.low <= cost.high


def originals(sweep: Sweep) -> dict[str, tuple[float | None, Ranked | None]]:
    """Milliseconds of each model in full precision, and its figure."""
    base = _full_precision_ms(sweep)
    found = {cell.model: cell.original for cell in sweep.cells if cell.original}
    return {model: (base.get(model), line.figure) for model, line in found.items()}


def _full_precision_ms(sweep: Sweep) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for cell in sweep.cells:
        if cell.original and cell.original.p50_ms is not None:
            found.setdefault(cell.model, []).append(cell.original.p50_ms)
    return {model: median(times) for model, times in found.items()}


def _cost(line: Line, full_precision_ms: float | None) -> Cost | None:
    if line.speedup is None or full_precision_ms is None:
        return None
    slow, fast = line.speedup_interval or (line.speedup, line.speedup)
    return Cost(*(full_precision_ms / ratio for ratio in (line.speedup, fast, slow)))


def _rank(place: Place) -> tuple[float, float, float]:
    line = place.line
    return (
        -(place.gain if place.gain is not None else -float("inf")),
        place.milliseconds or float("inf"),
        line.size_bytes or 0,
    )


def _line(report: Report, row: Row) -> Line:
    latency = min(row.latency, key=lambda one: one.batch_size) if row.latency else None
    return Line(
        id=row.id,
        title=row.title,
        not_run=row.not_run,
        top1=row.accuracy.top1 if row.accuracy else None,
        interval=row.accuracy.interval if row.accuracy else None,
        drop=report.drop(row),
        closeness=_closeness(report, row),
        ranked=_figure(report, row),
        p50_ms=latency.p50_ms if latency else None,
        speedup=latency.speedup if latency else None,
        speedup_interval=latency.speedup_interval if latency else None,
        size_bytes=row.size_bytes,
    )


def _figure(report: Report, row: Row) -> Ranked | None:
    found = plotted(report, row)
    if found is None or found.value is None:
        return None
    meaning = found.meaning
    return Ranked(title=meaning.title, unit=meaning.unit, value=found.value, higher_is_better=meaning.higher_is_better)


def _closeness(report: Report, row: Row) -> str | None:
    """As in "cosine 0.9991"; with the names of several outputs."""
    several = len(outputs(report)) > 1
    told = [
        f"{one.output.name + ': ' if several and one.output else ''}{one.title} "
        f"{value_text(one.value, one.meaning.unit)}"
        for one in headlines(report, row)
    ]
    return ", ".join(told) or None
