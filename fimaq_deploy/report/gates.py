"""The promises of a build: what it was asked to keep, and what no model may do whatever it is for.

An output that no threshold was set for is held to the floors of its figures: beyond them a model is plainly ruined.
They are far from anything that somebody would ship; a threshold of the user's own replaces them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fimaq_deploy.report.figures import Reading, headlines, held, losses, outputs, readings, within
from fimaq_deploy.report.schema import Report, Row
from fimaq_deploy.report.words import allowed_text, limit_text, told_text

_ROUNDING = 1e-9  # so that a loss of exactly the limit is within it


def failures(report: Report, max_drop: float | None) -> list[str]:
    """Each promise that the build broke, as a sentence.

    A compiler that refused the graph, a budget that what was built exceeds, and each deployed row that lost more than
    it was allowed, or is ruined.
    """
    refused = [f"{target.name}: {target.not_built}" for target in report.targets if target.failed]
    refused += beyond_budgets(report)
    return refused + [missed for row in report.deployed for missed in missed_by(report, row, max_drop)]


def missed_by(report: Report, row: Row, max_drop: float | None) -> list[str]:
    """The thresholds that a row misses, and the floors, as sentences."""
    return [*_drop(report, row, max_drop), *closeness_failures(report, row), *ruins(report, row)]


def beyond_budgets(report: Report) -> Iterator[str]:
    """Where what was built of a mix exceeds its budget, as sentences. Of a time all of its interval has to."""
    mix = report.mix
    if mix is None or mix.built is None:
        return
    if mix.size_budget is not None and mix.built.megabytes > mix.size_budget:
        yield f"model.onnx takes {mix.built.megabytes:.4g} MB, more than the {mix.size_budget:g} of --size-budget"
    for one in mix.built.times if mix.speed_budget is not None else ():
        if one.interval[1] < (mix.speed_budget or 0):
            yield (
                f"{one.target}: products are {one.speed:.3g} times as fast as in floats ({one.interval[0]:.3g} to "
                f"{one.interval[1]:.3g}), less than the {mix.speed_budget:g} of --speed-budget"
            )


def closeness_failures(report: Report, row: Row) -> Iterator[str]:
    """Where a row is farther from the original than it may be, as sentences."""
    asked = {"agreement": report.min_agreement, "cosine": report.min_cosine}
    for one in readings(report, row):
        least = asked.get(one.meaning.gate or "")
        if least is not None and not within(one.meaning, one.value, least - _ROUNDING):
            wanted = limit_text(least, one.meaning.unit)
            yield f"{row.title}: {told_text(report, one)}, less than the {wanted} of --min-{one.meaning.gate}"


def ruins(report: Report, row: Row) -> list[str]:
    """Why a row is plainly ruined, as sentences; nothing where a threshold of the user's replaces the floor."""
    replaced = _held(report)
    return [
        f"{row.title} is ruined: {_told(report, row, one)}; {_how_to_accept(one)}"
        for one in beyond_floors(report, row)
        if one.output is not None and one.output.name not in replaced
    ]


def beyond_floors(report: Report, row: Row) -> list[Reading]:
    """The first figure of each output that lies beyond its floor, with all of its interval."""
    found: dict[str, Reading] = {}
    for one in readings(report, row):
        if one.output is not None and _is_beyond(one):
            found.setdefault(one.output.name, one)
    return list(found.values())


def _drop(report: Report, row: Row, max_drop: float | None) -> Iterator[str]:
    if max_drop is None:
        return
    for own in held(report, row):
        if own.value is None:
            yield f"{row.title}: {own.title} is not finite, so --max-drop {max_drop:g} is not kept"
    for found in losses(report, row):
        if found.amount > max_drop + _ROUNDING:
            yield f"{row.title} {allowed_text(found)}, more than the {max_drop:g} allowed"


def _held(report: Report) -> set[str]:
    """The outputs that the user set a threshold for."""
    asked = {"agreement": report.min_agreement, "cosine": report.min_cosine}
    gates = {gate for gate, least in asked.items() if least is not None}
    found = {output.name for output in outputs(report) if gates & {meaning.gate for meaning in output.figures}}
    if report.max_drop is None:
        return found
    labelled = {one.output.name for one in held(report, report.baseline) if one.output is not None}
    return found | (labelled or {outputs(report)[0].name})


def _is_beyond(one: Reading) -> bool:
    """Whether the better end of the interval is beyond the floor too; a figure that is not finite is."""
    floor, meaning = one.meaning.floor, one.meaning
    if floor is None:
        return False
    if one.value is None:
        return True
    low, high = one.figure.interval or (one.value, one.value)
    return not within(meaning, one.value, floor) and not within(
        meaning, high if meaning.higher_is_better else low, floor
    )


def _told(report: Report, row: Row, beyond: Reading) -> str:
    """The output's headline, and the figure beyond its floor where that is another one."""
    floor = limit_text(beyond.meaning.floor or 0.0, beyond.meaning.unit)
    side = "less than" if beyond.meaning.higher_is_better else "more than"
    figures = [*(one for one in headlines(report, row) if one.output == beyond.output), beyond]
    told = dict.fromkeys(told_text(report, one) for one in figures)
    return f"{', '.join(told)}, {side} the {floor} that any model is held to"


def _how_to_accept(one: Reading) -> str:
    """The threshold that replaces the floor."""
    assert one.output is not None
    gate = next((meaning.gate for meaning in one.output.figures if meaning.gate), None)
    return f"calibrate better, or accept it with --min-{gate} 0" if gate else "calibrate better"
