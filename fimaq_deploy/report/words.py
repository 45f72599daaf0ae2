"""Numbers as a report says them."""

from __future__ import annotations

from fimaq_deploy.report.figures import Loss, Reading
from fimaq_deploy.report.schema import Report


def value_text(value: float | None, unit: str = "") -> str:
    """A figure with its unit: percent with two decimals, what is near 1 with four, anything else with four digits."""
    if value is None:
        return "not finite"
    return f"{number_text(value, unit)} %" if unit == "%" else number_text(value, unit)


def number_text(value: float | None, unit: str = "") -> str:
    """The same without the unit, for a column that has it in its head."""
    if value is None:
        return "not finite"
    if unit == "%":
        return f"{value:.2f}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 or value == 0 else f"{value:.4g}"


def told_text(report: Report, reading: Reading) -> str:
    """A figure as a sentence tells it, with its output's name where there are several."""
    meaning = reading.meaning
    told = meaning.told.replace("{value}", value_text(reading.value, meaning.unit))
    told = told.replace("{other}", report.baseline.title)
    several = len(report.outputs) > 1 and reading.output is not None
    return f"{reading.output.name}: {told}" if several and reading.output else told


def allowed_text(loss: Loss) -> str:
    """What a row lost, with its interval, as the beginning of "…, more than the 1 allowed"."""
    meaning = loss.reading.meaning
    if meaning.unit == "%":
        return f"loses {loss.amount:.2f} points of {meaning.title}{_interval(loss)}"
    pair = f"{number_text(loss.original)} to {number_text(loss.reading.value)}"
    return f"takes {meaning.title} from {pair}, which is {number_text(loss.amount)} worse{_interval(loss)}"


def _interval(loss: Loss) -> str:
    """As in " (95 %: 0.42 to 1.58)"."""
    if loss.interval is None:
        return ""
    low, high = (number_text(end, loss.reading.meaning.unit) for end in loss.interval)
    return f" (95 %: {low} to {high})"


def size_text(size_bytes: int | None) -> str:
    """A file size in kB or MB, powers of ten."""
    if size_bytes is None:
        return ""
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 999_500 else f"{size_bytes / 1e6:.1f} MB"


def times_text(ratio: float) -> str:
    """A speed-up or another ratio."""
    return f"{ratio:.2f}×"


def change_text(drop: float, unit: str = "%") -> str:
    """Points or units gained or lost, with a sign unless there is no change."""
    if unit != "%":
        return signed_text(0.0 - drop)
    change = round(-drop, 2)
    return f"{change:+.2f}" if change else "0.00"


def signed_text(change: float) -> str:
    """A change of a figure without a unit, with a sign unless there is none."""
    if abs(change) < 5e-5:
        return f"{change:+.2g}" if change else "0"
    return f"{'+' if change > 0 else ''}{number_text(change)}"


def limit_text(limit: float, unit: str = "") -> str:
    """A threshold as the user wrote it, with the unit of what it limits."""
    return f"{limit:g} %" if unit == "%" else f"{limit:g}"


def moment_text(created: str) -> str:
    """A time in ISO 8601 and UTC, to the minute."""
    return f"{created[:16].replace('T', ' ')} UTC" if created else ""


def points_text(points: float) -> str:
    """As in "1 point" and "0.5 points"."""
    return f"{points:g} point{'' if points == 1 else 's'}"
