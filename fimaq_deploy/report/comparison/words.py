"""What was found between two builds, in the words that every output uses."""

from __future__ import annotations

from fimaq_deploy.report.comparison.records import Difference, Judgement
from fimaq_deploy.report.words import points_text, signed_text, size_text, times_text, value_text

HEADER = ("", "figure", "new", "baseline", "change", "verdict")


def summary(judgement: Judgement) -> str:
    """The outcome in a sentence."""
    against = ", ".join(one.baseline for one in judgement.comparisons)
    broken, found, open_ = len(judgement.broken), len(judgement.regressions), len(judgement.obstacles)
    if broken:
        what = f"{judgement.new} is not close enough to its own original, and {_counted(found - broken)}"
    elif found:
        what = _counted(found)
    elif open_:
        what = "no regression found, but not every threshold could be judged,"
    elif judgement.thresholds.asked:
        what = "no regression"
    else:
        what = "shown without a threshold, so nothing is judged,"
    return f"{judgement.model}: {what} against {against}."


def _counted(regressions: int) -> str:
    return {0: "no regression", 1: "1 regression"}.get(regressions, f"{regressions} regressions")


def cells(difference: Difference) -> tuple[str, ...]:
    """One difference in the order of HEADER."""
    d = difference
    return (
        d.title,
        figure_text(d),
        _value(d, d.new, d.new_ms),
        _value(d, d.baseline, d.baseline_ms),
        change_text(d),
        verdict_text(d),
    )


def figure_text(difference: Difference) -> str:
    """What was measured."""
    d = difference
    measure = f"{d.measure} with the original" if d.of == "original" else d.measure
    return f"{d.output}: {measure}" if d.output else measure


def change_text(difference: Difference) -> str:
    """How the figure changed, upwards with a plus, and how sure that is."""
    certainty = certainty_text(difference)
    return f"{amount_text(difference)} ({certainty})" if certainty else amount_text(difference)


def amount_text(difference: Difference) -> str:
    """How the figure changed, upwards with a plus."""
    d = difference
    if d.of == "latency":
        return f"{d.loss:+.1f} %"
    if d.of == "size":
        return f"{d.loss:+.1f} %, {d.new - d.baseline:+,.0f} bytes"
    moved = 0.0 - d.loss if d.higher_is_better else d.loss
    return f"{moved:+.2f} points" if d.unit == "%" else signed_text(moved)


def certainty_text(difference: Difference) -> str:
    """The interval of the change and the probability, as far as there are any."""
    d = difference
    if d.interval is None:
        return ""
    upwards = d.higher_is_better and d.of not in ("latency", "size")
    low, high = (-d.interval[1], -d.interval[0]) if upwards else d.interval
    p_value = "" if d.p_value is None else f", p = {d.p_value:.2g}"
    if d.unit == "%" or d.of == "latency":
        return f"{low:+.1f} to {high:+.1f}{p_value}"
    return f"{low:+.2g} to {high:+.2g}{p_value}"


def verdict_text(difference: Difference) -> str:
    """The verdict in a word or two."""
    if difference.verdict == "same":
        return "equal" if difference.loss == 0 else "alike"
    return "within the limit" if difference.verdict == "allowed" else difference.verdict


def sentence(difference: Difference, baseline: str) -> str:
    """A loss beyond its threshold."""
    d = difference
    relative = ", relative to full precision" if d.of == "latency" else ""
    doubt = "; it may be chance" if d.verdict == "doubtful" else ""
    change = f"{figure_text(d)} {change_text(d)}{relative}"
    return f"{d.title}: {change}, against {baseline}; a loss of {allowance_text(d)} is allowed{doubt}"


def allowance_text(difference: Difference) -> str:
    """The limit with its unit."""
    limit = difference.limit or 0.0
    if difference.of in ("latency", "size"):
        return f"{limit:g} %"
    return points_text(limit) if difference.unit == "%" else f"{limit:g}"


def _value(difference: Difference, value: float, milliseconds: float | None) -> str:
    if difference.of == "size":
        return size_text(round(value))
    if difference.of != "latency":
        return value_text(value, difference.unit)
    return times_text(value) if milliseconds is None else f"{milliseconds:.2f} ms, {times_text(value)}"
