"""The findings between two builds as a page, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fimaq_deploy.files import write_whole
from fimaq_deploy.report.comparison.junit import to_junit
from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Verdict
from fimaq_deploy.report.comparison.words import (
    HEADER,
    allowance_text,
    amount_text,
    cells,
    certainty_text,
    figure_text,
    summary,
    verdict_text,
)
from fimaq_deploy.report.page.canvas import BAD, FAINT, GOOD, INK, MUTED, SURFACE, list_height, list_names, name_axes
from fimaq_deploy.report.page.html import render
from fimaq_deploy.report.page.markdown import page_markdown
from fimaq_deploy.report.page.parts import Card, Exhibit, Page, Section, Tone
from fimaq_deploy.report.words import moment_text, number_text, times_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TONES: dict[Verdict, Tone] = {"regression": "bad", "worse": "bad", "better": "good"}


def comparison_page(judgement: Judgement) -> Page:
    """All that is told of a new build and its baselines."""
    said, tone = _status(judgement)
    return Page(
        kind="Comparison",
        heading=f"{judgement.model}: {judgement.new}",
        status=said,
        tone=tone,
        headline=summary(judgement),
        reasons=[*judgement.regressions, *judgement.obstacles, *_doubts(judgement)],
        cards=_cards(judgement.comparisons[0]),
        sections=[_section(one, number) for number, one in enumerate(judgement.comparisons, 1)],
        created=moment_text(judgement.created),
        command=judgement.command,
    )


def write_comparison(
    judgement: Judgement,
    *,
    html: Path | None = None,
    markdown: Path | None = None,
    json: Path | None = None,
    junit: Path | None = None,
) -> None:
    """Write what was asked for.

    Raises:
        UserError: a file cannot be written.
    """
    page = comparison_page(judgement)
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (html, lambda: render(page, "compare.html.j2")),
        (markdown, lambda: page_markdown(_without_charts(page))),
        (json, judgement.to_json),
        (junit, lambda: to_junit(judgement)),
    ]
    for path, text in texts:
        if path is not None:
            write_whole(path, text().encode())


def _without_charts(page: Page) -> Page:
    """Text has no use for what is only drawn; its figures are in the table."""
    sections = [replace(s, exhibits=tuple(e for e in s.exhibits if e.rows or not e.paint)) for s in page.sections]
    return replace(page, sections=sections)


def _status(judgement: Judgement) -> tuple[str, Tone]:
    if judgement.broken:
        return "Not as the original", "bad"
    if judgement.regressions:
        return "Regression", "bad"
    if judgement.obstacles:
        return "Not everything could be judged", "bad"
    return ("No regression", "good") if judgement.thresholds.asked else ("Not held to any threshold", "plain")


def _doubts(judgement: Judgement) -> list[str]:
    return [sentence for one in judgement.comparisons for sentence in one.doubts]


def _cards(comparison: Comparison) -> list[Card]:
    """The first row to ship."""
    original = comparison.differences[0].row if comparison.differences else ""
    first = next((d.row for d in comparison.differences if d.row != original), original)
    return [_card(difference) for difference in comparison.differences if difference.row == first]


def _card(difference: Difference) -> Card:
    label = figure_text(difference)
    unit = ", points" if difference.unit == "%" else ""
    note = "; ".join(part for part in (verdict_text(difference), certainty_text(difference), _how(difference)) if part)
    value = amount_text(difference).removesuffix(" points").partition(",")[0]
    return Card(f"{label[:1].upper()}{label[1:]}{unit}", value, note, _TONES.get(difference.verdict, "plain"))


def _how(difference: Difference) -> str:
    """What a card's change is a change of."""
    if difference.of != "latency":
        return ""
    return (
        f"full precision takes {times_text(difference.new)} as long, before {times_text(difference.baseline)}: "
        "the change of that ratio, so that a slower machine is no slower build"
    )


def _section(comparison: Comparison, number: int) -> Section:
    answers = [d for d in comparison.differences if d.of in ("labels", "user")]
    latency = [d for d in comparison.differences if d.of == "latency" and d.interval]
    found = (
        _table(comparison, number),
        _losses(f"answers-{number}", answers, _answers_title(answers), _answers_axis(answers)),
        _losses(f"latency-{number}", latency, _latency_title(latency), "time lost, %, relative to full precision"),
        _changes(comparison, number),
    )
    title, text = f"Against {comparison.baseline}", " ".join(f"{note}." for note in comparison.notes)
    return Section(f"against-{number}", title, text, tuple(exhibit for exhibit in found if exhibit is not None))


def _table(comparison: Comparison, number: int) -> Exhibit:
    return Exhibit(
        f"figures-{number}",
        "Every figure in both builds",
        "Behind each change stands its 95 % interval: of answers from the images on which the builds differ, of top-1 "
        "with the exact McNemar probability, of time from the turns of both measurements. Time is the median of a "
        "batch, with its speed-up over full precision, measured in turns with it. What is compared is the ratio of "
        "the two speed-ups: a machine that is slower today slows both down, and drops out. Sizes are exact. Alike: "
        "chance explains the change. Doubtful: beyond the limit, but chance may explain it.",
        HEADER,
        tuple(cells(difference) for difference in comparison.differences),
        tuple(i for i, difference in enumerate(comparison.differences) if difference.verdict == "regression"),
    )


def _losses(name: str, differences: Sequence[Difference], title: str, axis: str) -> Exhibit | None:
    if not differences:
        return None

    def paint(axes: Axes) -> None:
        for place, difference in enumerate(differences):
            _interval(axes, place, difference)
        axes.axvline(0, color=MUTED, linewidth=1)
        several = _several(differences)
        list_names(axes, [_name(difference, several) for difference in differences])
        name_axes(axes, axis)

    note = "Further left is better. Bars are 95 % intervals"
    held = next((d for d in differences if d.limit is not None), None)
    shown = f"{note}; the short dark line is the {allowance_text(held)} allowed." if held else f"{note}."
    return Exhibit(name, title, shown, paint=paint, height=list_height(len(differences)))


def _answers_title(differences: Sequence[Difference]) -> str:
    lost = _lost(differences)
    if not lost:
        measure = differences[0].measure if differences and not _several(differences) else "accuracy"
        return f"No row loses more {measure} than chance explains"
    most = max(lost, key=_weight)
    amount = (
        f"{most.loss:.2f} points of {most.measure}"
        if most.unit == "%"
        else f"{number_text(most.loss)} of {most.measure}"
    )
    return f"{most.title} loses {amount}"


def _answers_axis(differences: Sequence[Difference]) -> str:
    first = next(iter(differences), None)
    if first is None:
        return ""
    if first.unit == "%" and _several(differences):
        return "points lost"
    return f"points of {first.measure} lost" if first.unit == "%" else f"{first.measure}, how much worse"


def _lost(differences: Sequence[Difference]) -> list[Difference]:
    return [d for d in differences if d.verdict in ("regression", "worse", "allowed", "doubtful")]


def _weight(difference: Difference) -> tuple[bool, float]:
    """What chance may explain is not named where there is a regression."""
    return difference.verdict == "regression", difference.loss


def _latency_title(differences: Sequence[Difference]) -> str:
    lost = _lost(differences)
    if all(d.verdict == "not judged" for d in differences):
        return "Time on other hardware, not judged"
    if not lost:
        return "No row is slower than its own spread explains"
    most = max(lost, key=_weight)
    longer = f"{most.loss:.0f} %" if most.loss >= 1 else "less than 1 %"
    return f"{most.title} takes {longer} longer at batch {most.batch_size}, relative to full precision"


def _interval(axes: Axes, place: int, difference: Difference) -> None:
    color = {"bad": BAD, "good": GOOD, "plain": FAINT}[_TONES.get(difference.verdict, "plain")]
    if difference.interval:
        axes.hlines(place, *difference.interval, color=color, linewidth=3, alpha=0.6)
    if difference.limit is not None:
        axes.vlines(difference.limit, place - 0.35, place + 0.35, color=INK, linewidth=1.6)
    axes.scatter([difference.loss], [place], s=56, color=color, edgecolor=SURFACE, zorder=3)


def _several(differences: Sequence[Difference]) -> bool:
    """Whether more than one figure is told, such as those of boxes and of masks."""
    return len({difference.measure for difference in differences if difference.of != "latency"}) > 1


def _name(difference: Difference, several: bool = False) -> str:
    if several:
        return f"{difference.title}, {difference.measure}"
    return difference.title if difference.batch_size is None else f"{difference.title}, {difference.batch_size}"


def _changes(comparison: Comparison, number: int) -> Exhibit:
    lines = tuple((change.name, change.new, change.baseline) for change in comparison.changes)
    title = "What else is not the same" if lines else "Recipe, seed, machine and packages are the same"
    return Exhibit(f"changes-{number}", title, "", ("", "new", "baseline"), lines)
