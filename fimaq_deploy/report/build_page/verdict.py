"""What a build amounts to, in a sentence or two, against the full-precision original."""

from __future__ import annotations

from collections.abc import Iterator

from fimaq_deploy.report.figures import Loss, Reading, headlines, held, judged, loss, losses, outputs, within
from fimaq_deploy.report.gates import beyond_floors, failures, missed_by
from fimaq_deploy.report.page.parts import Card, Tone
from fimaq_deploy.report.schema import Latency, Report, Row, TargetStatus
from fimaq_deploy.report.words import (
    change_text,
    limit_text,
    points_text,
    size_text,
    times_text,
    told_text,
    value_text,
)

__all__ = ["cards", "clear_speedup", "concerns", "failures", "shipped", "status", "verdict"]

_OUTPUTS_TOLD = 3


def verdict(report: Report) -> str:
    """The headline: how close to the original, how fast and how large what would be shipped is."""
    row = shipped(report)
    name = f"{report.model.name} with recipe {report.recipe['name']}"
    if row is None:
        return " ".join([f"{name}: nothing that can be deployed was run here.", *instead(report)])
    parts = [part for part in (_closeness(report, row), _speed(report, row), _size(report, row)) if part]
    return " ".join([f"{name}, {row.title}: {', '.join(parts)}.", *instead(report)])


def instead(report: Report) -> list[str]:
    """For each target whose runtime gains nothing from integers: what to ship there, and what both files take."""
    return [_instead(report, target) for target in report.targets if target.ships]


def _instead(report: Report, target: TargetStatus) -> str:
    original = next((row for row in report.rows if row.id.startswith(f"{target.name}-")), None)
    quantized = report.row(target.name)
    took = ""
    if original and quantized and original.latency and quantized.latency:
        fast, slow = original.latency[0], quantized.latency[0]
        took = f": {fast.p50_ms:.2f} ms for {_images(fast.batch_size)}, and the quantized file {slow.p50_ms:.2f}"
    return f"For {target.name}, whose kernels multiply no integers, ship {target.ships}{took}."


def shipped(report: Report) -> Row | None:
    """The row that the headline is about: the first one that would be deployed and ran."""
    return next(iter(report.deployed), None)


def concerns(report: Report) -> list[str]:
    """What no gate forbids and a reader should still know before shipping, as sentences."""
    broken = [f"{audit.target}: {promise}" for audit in report.audits for promise in audit.broken]
    invalid = [f"{row.title}: {count} images gave outputs that are not finite" for row, count in _not_finite(report)]
    return broken + invalid


def status(report: Report) -> tuple[str, Tone]:
    """Whether it holds, in a few words, and in which colour to say so."""
    row = shipped(report)
    if failures(report, report.max_drop):
        ruined = any(beyond_floors(report, each) for each in report.deployed)
        return "Ruined: its answers are not those of the original" if ruined else "Does not hold", "bad"
    if row is not None and beyond_floors(report, row):
        return "Ruined, and accepted as it is", "bad"
    if concerns(report):
        return "Look closer", "bad"
    if row is None:
        return "Not run here", "plain"
    return _status_of(report, row)


def cards(report: Report) -> list[Card]:
    """What would be shipped: accuracy, closeness to the original, latency and size, as far as they were measured."""
    row = shipped(report)
    if row is None:
        return []
    closest = [_closeness_card(report, row, one) for one in headlines(report, row)[:_OUTPUTS_TOLD]]
    found = (
        *(_judged_card(report, one) for one in losses(report, row)),
        *closest,
        _latency_card(report, row),
        _size_card(report, row),
    )
    return [card for card in found if card is not None]


def clear_speedup(latency: Latency) -> bool:
    """Whether the speed-up is known to differ from 1, so far as its interval tells, and by what can be seen."""
    low, high = latency.speedup_interval or (latency.speedup or 1, latency.speedup or 1)
    return not low <= 1 <= high and f"{latency.speedup or 1:.2f}" != "1.00"


def _status_of(report: Report, row: Row) -> tuple[str, Tone]:
    """Of a row that keeps all promises."""
    promises = list(_kept_promises(report, row))
    if promises:
        return f"Holds: {' and '.join(promises)}", "good"
    own, images = judged(report, row), report.data.evaluation_images
    if own is None or own.figure.interval is None:
        told = [told_text(report, one) for one in headlines(report, row)[:1]]
        return f"Held to no threshold: {told[0] if told else 'not compared with the original'}", "plain"
    if any(map(_is_plain, losses(report, row))):
        return f"Loses more than chance explains on {images:,} images", "bad"
    return f"Holds: no loss beyond chance on {images:,} images", "good"


def _kept_promises(report: Report, row: Row) -> Iterator[str]:
    """The thresholds that the user set and the row keeps."""
    found = held(report, row)
    if report.max_drop is not None and found:
        allowed = points_text(report.max_drop) if found[0].meaning.unit == "%" else f"{report.max_drop:g}"
        yield f"within the {allowed} of {' and of '.join(one.title for one in found)} allowed"
    asked = {"agreement": report.min_agreement, "cosine": report.min_cosine}
    for one in headlines(report, row):
        least = asked.get(one.meaning.gate or "")
        if least is not None:
            yield f"{told_text(report, one)}, at least {limit_text(least, one.meaning.unit)} asked"


def _not_finite(report: Report) -> list[tuple[Row, int]]:
    counts = [(row, row.not_finite or (row.accuracy.not_finite if row.accuracy else 0)) for row in report.rows]
    return [(row, count) for row, count in counts if count]


def _is_plain(found: Loss) -> bool:
    """Whether chance does not explain it: by the interval of the loss itself, else that of the row, where the
    original's figure is better than all of it."""
    if found.interval is not None:
        return found.amount > 0 and found.interval[0] > 0
    if found.reading.figure.interval is None:
        return False
    low, high = found.reading.figure.interval
    better = found.reading.meaning.higher_is_better
    return found.amount > 0 and not within(found.reading.meaning, high if better else low, found.original)


def _closeness(report: Report, row: Row) -> str:
    """Against labels or in the user's own figure, and against the original where that is all or there is more."""
    ruined = beyond_floors(report, row)
    told = [told_text(report, one) for one in headlines(report, row)]
    change = loss(report, row)
    if change is not None:
        others = told if report.evaluate or ruined else told[1:] if len(outputs(report)) > 1 else []
        told = [*(_change(report, one) for one in losses(report, row)), *others]
    more = [f"and {len(told) - _OUTPUTS_TOLD} more outputs"] if len(told) > _OUTPUTS_TOLD + 1 else []
    text = ", ".join([*(told if not more else told[:_OUTPUTS_TOLD]), *more])
    return f"ruined, {text}" if ruined else text or "not compared with the original"


def _change(report: Report, change: Loss) -> str:
    """As in "97.50 % top-1 (-0.50 points)"."""
    unit = change.reading.meaning.unit
    moved = change.amount if change.reading.meaning.higher_is_better else -change.amount
    return f"{told_text(report, change.reading)} ({change_text(moved, unit)}{' points' if unit == '%' else ''})"


def _speed(report: Report, row: Row) -> str:
    latency = row.latency[0] if row.latency else None
    if latency is None or not latency.speedup:
        return ""
    other = report.row(latency.ratio_to or "")
    precision = other.precision if other else "FP32"
    if f"{latency.speedup:.2f}" == "1.00":
        return f"as fast as {precision}"
    return f"{latency.speedup:.2f} times the speed of {precision}"


def _size(report: Report, row: Row) -> str:
    original = report.row("onnx-fp32")
    if original is None or not original.size_bytes or not row.size_bytes:
        return ""
    return f"{size_text(row.size_bytes)} instead of {size_text(original.size_bytes)}"


def _judged_card(report: Report, change: Loss) -> Card:
    """A figure against labels, or the user's own."""
    meaning = change.reading.meaning
    moved = change_text(change.amount if meaning.higher_is_better else -change.amount, meaning.unit)
    points = " points" if meaning.unit == "%" else ""
    note = f"{moved}{points} against {report.baseline.title}{_interval_note(change.reading)}"
    lost = change.amount > report.max_drop if report.max_drop is not None else _is_plain(change)
    return Card(_label(meaning.title), value_text(change.reading.value, meaning.unit), note, "bad" if lost else "good")


def _closeness_card(report: Report, row: Row, one: Reading) -> Card:
    several = len(outputs(report)) > 1 and one.output is not None
    name = f"{one.output.name}: " if several and one.output else ""
    images = f"the same {report.data.evaluation_images:,} images"
    return Card(
        f"{name or ''}{one.title} with the original" if name else f"{_label(one.title)} with the original",
        value_text(one.value, one.meaning.unit),
        f"{report.baseline.title} on {images}{_interval_note(one)}",
        _closeness_tone(report, row, one),
    )


def _closeness_tone(report: Report, row: Row, one: Reading) -> Tone:
    """Bad where the output is ruined or a threshold is missed, good where one is kept."""
    if any(found.output is not None and found.output == one.output for found in beyond_floors(report, row)):
        return "bad"
    least = {"agreement": report.min_agreement, "cosine": report.min_cosine}.get(one.meaning.gate or "")
    if least is None:
        return "plain"
    return "bad" if missed_by(report, row, None) and not within(one.meaning, one.value, least) else "good"


def _interval_note(one: Reading) -> str:
    if one.figure.interval is None:
        return ""
    low, high = one.figure.interval
    text = f"{low:.1f} to {high:.1f}" if one.meaning.unit == "%" else f"{low:.4g} to {high:.4g}"
    return f"; 95 % interval {text}"


def _label(title: str) -> str:
    return f"{title[:1].upper()}{title[1:]}"


def _latency_card(report: Report, row: Row) -> Card | None:
    if not row.latency:
        return None
    latency = row.latency[0]
    images = _images(latency.batch_size)
    if not latency.speedup:
        return Card("Latency", f"{latency.p50_ms:.2f} ms", f"median for {images}")
    other = report.row(latency.ratio_to or "")
    title = other.title if other else latency.ratio_to
    times = times_text(latency.speedup)
    speed = f"as fast as {title}" if times == times_text(1) else f"{times} the speed of {title}"
    return Card("Latency", f"{latency.p50_ms:.2f} ms", f"median for {images}; {speed}", _speed_tone(latency))


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _speed_tone(latency: Latency) -> Tone:
    if not latency.speedup or not clear_speedup(latency):
        return "plain"
    return "good" if latency.speedup > 1 else "bad"


def _size_card(report: Report, row: Row) -> Card | None:
    if row.size_bytes is None:
        return None
    original = report.row("onnx-fp32")
    if original is None or not original.size_bytes:
        return Card("File", size_text(row.size_bytes))
    ratio = original.size_bytes / row.size_bytes
    note = (
        f"{ratio:.1f}× smaller than {size_text(original.size_bytes)} in FP32"
        if ratio >= 1.05
        else "not smaller than in FP32"
    )
    return Card("File", size_text(row.size_bytes), note, "good" if ratio >= 1.05 else "plain")
