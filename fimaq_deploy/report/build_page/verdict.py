"""What a build amounts to, in a sentence or two, and whether it keeps its promises."""

from __future__ import annotations

from fimaq_deploy.report.build_page.table import change_text, points_text, size_text, times_text
from fimaq_deploy.report.page.parts import Card, Tone
from fimaq_deploy.report.schema import Latency, Report, Row


def verdict(report: Report) -> str:
    """The headline: accuracy, speed and size of what would be shipped, against the full-precision original."""
    row = shipped(report)
    if row is None:
        return f"{report.model.name} with recipe {report.recipe['name']}: nothing that can be deployed was run here."
    parts = [part for part in (_accuracy(report, row), _speed(report, row), _size(report, row)) if part]
    return f"{report.model.name} with recipe {report.recipe['name']}, {row.title}: {', '.join(parts)}."


def shipped(report: Report) -> Row | None:
    """The row that the headline is about: the first one that would be deployed and ran."""
    return next(iter(report.deployed), None)


def failures(report: Report, max_drop: float | None) -> list[str]:
    """Each promise that the build broke, as a sentence.

    A compiler that refused the graph, and each deployed row that loses more than `max_drop` points of top-1.
    """
    refused = [f"{target.name}: {target.not_built}" for target in report.targets if target.failed]
    drops = [(row, report.drop(row)) for row in report.deployed if max_drop is not None]
    lost = [
        f"{row.title} loses {drop:.2f} points of top-1, more than the {max_drop:g} allowed"
        for row, drop in drops
        if drop is not None and max_drop is not None and drop > max_drop
    ]
    return refused + lost


def concerns(report: Report) -> list[str]:
    """What no gate forbids and a reader should still know before shipping, as sentences."""
    broken = [f"{audit.target}: {promise}" for audit in report.audits for promise in audit.broken]
    invalid = [
        f"{row.title}: {row.accuracy.not_finite} images gave logits that are not finite"
        for row in report.rows
        if row.accuracy and row.accuracy.not_finite
    ]
    return broken + invalid


def status(report: Report) -> tuple[str, Tone]:
    """Whether it holds, in a few words, and in which colour to say so."""
    row = shipped(report)
    if failures(report, report.max_drop):
        return "Does not hold", "bad"
    if concerns(report):
        return "Look closer", "bad"
    if row is None:
        return "Not run here", "plain"
    if row.accuracy is None:
        return "Not judged: the images have no labels", "plain"
    if report.max_drop is not None:
        return f"Holds: within the {points_text(report.max_drop)} of top-1 allowed", "good"
    if _loss_is_plain(report, row):
        return f"Loses more than chance explains on {row.accuracy.images:,} images", "bad"
    return f"Holds: no loss beyond chance on {row.accuracy.images:,} images", "good"


def cards(report: Report) -> list[Card]:
    """Accuracy, agreement, latency and size of what would be shipped, as far as they were measured."""
    row = shipped(report)
    if row is None:
        return []
    found = (
        _accuracy_card(report, row),
        _agreement_card(report, row),
        _latency_card(report, row),
        _size_card(report, row),
    )
    return [card for card in found if card is not None]


def clear_speedup(latency: Latency) -> bool:
    """Whether the speed-up is known to differ from 1, so far as its interval tells."""
    low, high = latency.speedup_interval or (latency.speedup or 1, latency.speedup or 1)
    return not low <= 1 <= high


def _loss_is_plain(report: Report, row: Row) -> bool:
    """Whether the original's top-1 lies above the 95 % interval of the row's."""
    original = report.baseline.accuracy
    return bool(original and row.accuracy and original.top1 > row.accuracy.interval[1])


def _accuracy(report: Report, row: Row) -> str:
    drop = report.drop(row)
    if drop is None or row.accuracy is None:
        agreement = row.comparison.agreement if row.comparison else None
        return "" if agreement is None else f"{agreement:.2f} % of predictions as its reference"
    return f"{row.accuracy.top1:.2f} % top-1 ({change_text(drop)} points)"


def _speed(report: Report, row: Row) -> str:
    latency = row.latency[0] if row.latency else None
    if latency is None or not latency.speedup:
        return ""
    other = report.row(latency.ratio_to or "")
    return f"{latency.speedup:.2f} times the speed of {other.precision if other else 'FP32'}"


def _size(report: Report, row: Row) -> str:
    original = report.row("onnx-fp32")
    if original is None or not original.size_bytes or not row.size_bytes:
        return ""
    return f"{size_text(row.size_bytes)} instead of {size_text(original.size_bytes)}"


def _accuracy_card(report: Report, row: Row) -> Card | None:
    drop = report.drop(row)
    if row.accuracy is None or drop is None:
        return None
    low, high = row.accuracy.interval
    lost = drop > report.max_drop if report.max_drop is not None else _loss_is_plain(report, row)
    note = f"{change_text(drop)} points against {report.baseline.title}; 95 % interval {low:.1f} to {high:.1f}"
    return Card("Top-1", f"{row.accuracy.top1:.2f} %", note, "bad" if lost else "good")


def _agreement_card(report: Report, row: Row) -> Card | None:
    if row.comparison is None:
        return None
    other = report.row(row.comparison.to)
    return Card(
        "Same prediction", f"{row.comparison.agreement:.2f} %", f"as {other.title if other else row.comparison.to}"
    )


def _latency_card(report: Report, row: Row) -> Card | None:
    if not row.latency:
        return None
    latency = row.latency[0]
    images = "one image" if latency.batch_size == 1 else f"{latency.batch_size} images"
    if not latency.speedup:
        return Card("Latency", f"{latency.p50_ms:.2f} ms", f"median for {images}")
    other = report.row(latency.ratio_to or "")
    note = (
        f"median for {images}; {times_text(latency.speedup)} the speed of {other.title if other else latency.ratio_to}"
    )
    return Card("Latency", f"{latency.p50_ms:.2f} ms", note, _speed_tone(latency))


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
        if ratio > 1
        else "not smaller than in FP32"
    )
    return Card("File", size_text(row.size_bytes), note, "good" if ratio > 1.05 else "plain")
