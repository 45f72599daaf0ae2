"""Differences in what two builds answer: in the figures that --max-drop is about, and in how close to the original.

Image by image where both builds kept what they did with each: two builds err mostly on the same images, and only those
where they part say anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from fimaq_deploy.report.comparison.builds import Build
from fimaq_deploy.report.comparison.records import Difference, verdict_of
from fimaq_deploy.report.comparison.statistics import (
    SIGNIFICANCE,
    Interval,
    Pairs,
    correlation,
    difference_interval,
    mcnemar,
    paired_interval,
    replicate_interval,
)
from fimaq_deploy.report.figures import Reading, headlines, held, judged, outputs, readings
from fimaq_deploy.report.predictions import Key, Predictions
from fimaq_deploy.report.schema import Row

Evidence = tuple[Interval | None, float | None]  # of the loss: its interval and McNemar's probability


def answer_differences(
    new: Build, baseline: Build, rows: tuple[Row, Row], max_drop: float | None
) -> Iterator[Difference]:
    """Of one row in both builds. max_drop: None where the row is held to nothing."""
    ours, theirs = judged(new.report, rows[0]), judged(baseline.report, rows[1])
    if ours and theirs:
        yield from _difference(new, baseline, rows[0], (ours, theirs), max_drop)
    for pair in _further(new, baseline, rows):
        yield from _difference(new, baseline, rows[0], pair, max_drop)
    earlier = {_identity(baseline, one): one for one in headlines(baseline.report, rows[1])}
    for one in headlines(new.report, rows[0]):
        other = earlier.get(_identity(new, one))
        if other:
            yield from _difference(new, baseline, rows[0], (one, other), None)


def _further(new: Build, baseline: Build, rows: tuple[Row, Row]) -> Iterator[tuple[Reading, Reading]]:
    """What else is held to the same threshold, of what both have: an older report does not say so of its figures."""
    ours, theirs = (
        {_identity(build, one): one for one in readings(build.report, row)}
        for build, row in zip((new, baseline), rows, strict=True)
    )
    both = zip((new, baseline), rows, strict=True)
    wanted = [_identity(build, one) for build, row in both for one in held(build.report, row, "comparison")[1:]]
    for one in dict.fromkeys(wanted):
        if one in ours and one in theirs:
            yield ours[one], theirs[one]


def _identity(build: Build, reading: Reading) -> tuple[str, str, str]:
    """What a figure is, in reports of any version: an only output has been called differently."""
    several = len(outputs(build.report)) > 1 and reading.output is not None
    return reading.output.name if several and reading.output else "", reading.meaning.of, reading.meaning.name


def _difference(
    new: Build, baseline: Build, row: Row, pair: tuple[Reading, Reading], limit: float | None
) -> Iterator[Difference]:
    ours, theirs = pair
    if ours.value is None or theirs.value is None or _identity(new, ours) != _identity(baseline, theirs):
        return
    meaning = ours.meaning
    loss = theirs.value - ours.value if meaning.higher_is_better else ours.value - theirs.value
    interval, p_value = _evidence(new, baseline, row.id, pair)
    yield Difference(
        row=row.id,
        title=row.title,
        figure=meaning.name,
        of=meaning.of,
        output=_identity(new, ours)[0],
        measure=meaning.title,
        unit=meaning.unit,
        higher_is_better=meaning.higher_is_better,
        new=ours.value,
        baseline=theirs.value,
        loss=loss,
        interval=interval,
        p_value=p_value,
        limit=limit,
        verdict=verdict_of(loss, limit, _is_real(loss, interval, p_value)),
    )


def _is_real(loss: float, interval: Interval | None, p_value: float | None) -> bool:
    """Whether chance does not explain it. A figure without an interval is taken as it is."""
    if p_value is not None:
        return p_value < SIGNIFICANCE
    return loss != 0 if interval is None else not interval[0] <= 0 <= interval[1]


def _evidence(new: Build, baseline: Build, row: str, pair: tuple[Reading, Reading]) -> Evidence:
    """As sharp as what both builds kept allows."""
    ours, theirs = pair
    if ours.meaning.name == "top1" and (pairs := _pairs(new.predictions, baseline.predictions, row)):
        return _unpaired(ours, theirs, correlation(pairs)), mcnemar(pairs)
    return _paired(new.predictions, baseline.predictions, row, pair) or _unpaired(ours, theirs), None


def _pairs(new: Predictions | None, old: Predictions | None, row: str) -> Pairs | None:
    """Which images the baseline got right, and which the new build."""
    if not (new and old and new.labels is not None and row in new.rows and row in old.rows):
        return None
    ours, theirs = new.rows[row] == new.labels, old.rows[row] == new.labels
    counts = (theirs & ours, theirs & ~ours, ~theirs & ours, ~theirs & ~ours)
    return Pairs(*(int(found.sum()) for found in counts))


def _paired(
    new: Predictions | None, old: Predictions | None, row: str, pair: tuple[Reading, Reading]
) -> Interval | None:
    """From each image, or from the same resamples of the images."""
    if not (new and old and pair[0].output and pair[1].output):
        return None
    ours, theirs = (Key(row, one.output.name, one.meaning.name) for one in pair if one.output)
    sign = 1.0 if pair[0].meaning.higher_is_better else -1.0
    if ours in new.means and theirs in old.means:
        return paired_interval(sign * old.means[theirs], sign * new.means[ours])
    if ours in new.resamples and theirs in old.resamples:
        return replicate_interval(sign * old.resamples[theirs], sign * new.resamples[ours])
    return None


def _unpaired(ours: Reading, theirs: Reading, correlated: float = 0.0) -> Interval | None:
    mine, other = ours.figure.interval, theirs.figure.interval
    if mine is None or other is None or ours.value is None or theirs.value is None:
        return None
    if ours.meaning.higher_is_better:
        return difference_interval(theirs.value, other, ours.value, mine, correlated)
    return difference_interval(ours.value, mine, theirs.value, other, correlated)
