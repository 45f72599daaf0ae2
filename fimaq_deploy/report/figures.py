"""The figures of a report's rows with their meaning, from a report of any version, and what a row lost.

Nothing here knows a kind of output by name: what a figure says stands in the report beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from fimaq_deploy.report.schema import Figure, Meaning, Output, Report, Row

Where = Literal["build", "comparison"]

# What reports before 0.2.0 say without saying so.
_LOGITS = Output(
    name="logits",
    task="classes",
    shape=[],
    figures=[
        Meaning(name="top1", title="top-1", told="{value} top-1", unit="%", of="labels", headline=True, column=True),
        Meaning(name="top5", title="top-5", told="{value} top-5", unit="%", of="labels", column=True),
        Meaning(
            name="agreement",
            title="agree",
            told="{value} of predictions as {other}",
            unit="%",
            of="original",
            headline=True,
            column=True,
            gate="agreement",
        ),
    ],
)


class Reading(NamedTuple):
    """A figure of a row and what it says. output: None for a figure of the user's own."""

    output: Output | None
    meaning: Meaning
    figure: Figure

    @property
    def value(self) -> float | None:
        """None where it is not finite."""
        return self.figure.value

    @property
    def title(self) -> str:
        return self.meaning.title


class Loss(NamedTuple):
    """How much worse a row is than the original in a figure that --max-drop is about; below 0 it is better.

    interval: 95 % of the amount; None where it is not known.
    """

    reading: Reading
    original: float
    amount: float

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.reading.figure.loss_interval


def outputs(report: Report) -> list[Output]:
    """What the model returns, the main output first."""
    return report.outputs or [_LOGITS]


def readings(report: Report, row: Row) -> list[Reading]:
    """Everything that was measured of a row against labels, by the user's function, and against the original."""
    figures = [*_labelled(report, row), *_against_original(report, row)]
    known = {(output.name, meaning.name): (output, meaning) for output in outputs(report) for meaning in output.figures}
    found = [Reading(*known[key], figure) for figure in figures if (key := (figure.output, figure.name)) in known]
    return [*found, *own_readings(row)]


def own_readings(row: Row) -> list[Reading]:
    """What the user's function said, the figure that is judged first."""
    return [
        Reading(None, Meaning(name=f.name, title=f.name, told=f"{f.name} {{value}}", of="user", headline=not number), f)
        for number, f in enumerate(row.own)
    ]


def headlines(report: Report, row: Row) -> list[Reading]:
    """For each output the one figure against the original that tells most."""
    return [one for one in readings(report, row) if one.meaning.of == "original" and one.meaning.headline]


def judged(report: Report, row: Row) -> Reading | None:
    """What --max-drop is about: the user's own figure, else the one against the labels, which are about one output."""
    own = own_readings(row)
    if own or report.evaluate:
        return own[0] if own else None
    labelled = (one for one in readings(report, row) if one.meaning.of == "labels" and one.meaning.headline)
    return next(labelled, None)


def held(report: Report, row: Row, where: Where = "build") -> list[Reading]:
    """All that --max-drop is about, what is `judged` first: of objects with masks both boxes and masks."""
    first = judged(report, row)
    if first is None or first.output is None:
        return [first] if first else []
    drops = ("build",) if where == "build" else ("build", "comparison")
    same = (one for one in readings(report, row) if one.output == first.output and one.meaning.of == "labels")
    return [first, *(one for one in same if one.meaning.drop in drops and one.meaning.name != first.meaning.name)]


def plotted(report: Report, row: Row) -> Reading | None:
    """The one figure of a row that a chart or a list of builds shows; None where it is not finite."""
    same = judged(report, report.baseline) is not None
    found = judged(report, row) if same else next(iter(headlines(report, row)), None)
    return None if found is None or found.value is None else found


def loss(report: Report, row: Row) -> Loss | None:
    """Of what is `judged`; None where it was not measured of both, or where either is not finite."""
    own = judged(report, row)
    return next((one for one in losses(report, row) if one.reading == own), None)


def losses(report: Report, row: Row) -> list[Loss]:
    """Of all that is `held`, as far as it was measured of both and is finite."""
    originals = {_key(one): one.value for one in held(report, report.baseline)}
    pairs = ((one, originals.get(_key(one))) for one in held(report, row))
    return [_loss(one, original) for one, original in pairs if original is not None and one.value is not None]


def _loss(own: Reading, original: float) -> Loss:
    change = (own.value or 0.0) - original
    return Loss(own, original, -change if own.meaning.higher_is_better else change)


def _key(one: Reading) -> tuple[str, str]:
    return one.output.name if one.output else "", one.meaning.name


def within(meaning: Meaning, value: float | None, limit: float) -> bool:
    """Whether a value is on the good side of a limit, or on it. One that is not finite never is."""
    return value is not None and (value >= limit if meaning.higher_is_better else value <= limit)


def _labelled(report: Report, row: Row) -> Iterator[Figure]:
    yield from row.labelled
    if not report.outputs and row.accuracy:
        yield Figure(output="logits", name="top1", value=row.accuracy.top1, interval=row.accuracy.interval)
        if row.accuracy.top5 is not None:
            yield Figure(output="logits", name="top5", value=row.accuracy.top5)


def _against_original(report: Report, row: Row) -> Iterator[Figure]:
    """A report before 0.2.0 compares a row with its neighbour, which for some is the original."""
    yield from row.original.figures if row.original else ()
    neighbour = row.comparison if not report.outputs else None
    if neighbour and neighbour.to == report.baseline.id and neighbour.agreement is not None:
        yield Figure(output="logits", name="agreement", value=neighbour.agreement)
