"""The findings of a sweep as a page, for HTML, Markdown and the terminal alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from fimaq_deploy.report.page.canvas import FAINT, MARKERS, MUTED, SERIES, SURFACE, add_key, name_axes
from fimaq_deploy.report.page.html import render
from fimaq_deploy.report.page.labels import tell_apart
from fimaq_deploy.report.page.parts import Card, Exhibit, Page, Section, Tone, compact
from fimaq_deploy.report.sweep_page.records import Cost, Place, Ranked, Sweep, by_figure, leaderboard, originals, pareto
from fimaq_deploy.report.words import change_text, moment_text, size_text, times_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("model", "recipe", "runs on", "accuracy", "points", "as the original", "ms", "speed-up", "size", "front")

_ABOUT = (
    "Builds are timed minutes apart and a machine's speed drifts, so the milliseconds for one image are those of the "
    "model in full precision, the median over its builds, over the build's own speed-up, which was measured in turns."
)
_FRONT = "●"


class _Point(NamedTuple):
    """One build in a chart: what it costs and what it reaches."""

    model: str
    recipe: str
    cost: Cost
    figure: Ranked
    on_front: bool


def to_html(page: Page) -> str:
    """The page as one file."""
    return render(page, "sweep.html.j2")


def sweep_page(sweep: Sweep) -> Page:
    """All that is told of a sweep."""
    said, tone = _status(sweep)
    failed = [f"{cell.name} failed: {cell.error}" for cell in sweep.failed]
    return Page(
        kind="Sweep",
        heading=sweep.name,
        status=said,
        tone=tone,
        headline=headline(sweep),
        reasons=[*failed, *sweep.missed],
        cards=_cards(leaderboard(sweep)),
        sections=_sections(sweep),
        created=moment_text(sweep.created),
        command=sweep.command,
    )


def headline(sweep: Sweep) -> str:
    """What was built, and the ends of the front."""
    models, recipes = len({cell.model for cell in sweep.cells}), len({cell.recipe for cell in sweep.cells})
    built = f"{_counted(len(sweep.cells), 'build')} of {_counted(models, 'model')} and {_counted(recipes, 'recipe')}"
    groups = by_figure([place for place in leaderboard(sweep) if place.on_front])
    front = next(iter(groups.values()), [])
    if not front:
        return f"{built}: nothing that could be compared was run here."
    best, fastest = front[0], min(front, key=lambda place: place.milliseconds or 0)
    if best is fastest:
        return f"{built}: {_told(best)} is the most accurate, and none is clearly faster."
    return f"{built}: {_told(best)} is the most accurate, {_told(fastest)} the fastest."


def cells(place: Place) -> tuple[str, ...]:
    """One line of the leaderboard in the order of HEADER, with a dot where it is on the front."""
    line = place.line
    return (
        place.cell.model,
        place.cell.recipe,
        line.title,
        "not run" if line.not_run else "" if line.figure is None else line.figure.text,
        "" if line.drop is None else change_text(line.drop),
        line.closeness or "",
        "" if place.milliseconds is None else f"{place.milliseconds:.2f}",
        "" if line.speedup is None else times_text(line.speedup),
        size_text(line.size_bytes),
        _FRONT if place.on_front else "",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _told(place: Place) -> str:
    figure = place.line.figure
    reached = f"{figure.text}, " if figure else ""
    return f"{place.cell.model} with {place.cell.recipe} ({reached}{place.milliseconds:.2f} ms)"


def _status(sweep: Sweep) -> tuple[str, Tone]:
    waiting = sum(cell.state == "waiting" for cell in sweep.cells)
    if sweep.failed:
        return f"{len(sweep.failed)} of {_counted(len(sweep.cells), 'build')} failed", "bad"
    if waiting:
        return f"{_counted(waiting, 'build')} still to come", "plain"
    if sweep.missed:
        return "Every build was made, not every gate was met", "bad"
    return "Every build was made", "good"


def _cards(places: Sequence[Place]) -> list[Card]:
    """The front, from the most accurate to the fastest."""
    return [_card(place, place.line.figure) for place in places if place.on_front and place.line.figure][:4]


def _card(place: Place, figure: Ranked) -> Card:
    where = f"{place.cell.model} with {place.cell.recipe} in {place.line.title}"
    cost = f"{place.milliseconds:.2f} ms, {size_text(place.line.size_bytes)}"
    return Card(place.cell.name, value_text(figure.value, figure.unit), f"{figure.title} of {where}; {cost}")


def _sections(sweep: Sweep) -> list[Section]:
    places = leaderboard(sweep)
    groups = [group for title, group in by_figure(places).items() if title]
    charts = [
        chart
        for number, group in enumerate(groups)
        for chart in (_against_latency(sweep, group, number), _against_size(group, number))
    ]
    found = (
        Section("front", "Accuracy against cost", _ABOUT, tuple(chart for chart in charts if chart)),
        Section("leaderboard", "Leaderboard", "", _board(places)),
        Section("cells", "Builds", f"Made on {sweep.machine}.", (_builds(sweep),)),
    )
    return [section for section in found if section.exhibits]


def _board(places: Sequence[Place]) -> tuple[Exhibit, ...]:
    if not places:
        return ()
    absent = {f"{place.line.title}: not run: {place.line.not_run}." for place in places if place.line.not_run}
    exhibit = Exhibit(
        "board",
        "Every build, the most accurate first",
        " ".join(
            (f"{_FRONT} on the Pareto front: nothing is more accurate without being clearly slower.", *sorted(absent))
        ),
        HEADER,
        tuple(cells(place) for place in places),
        tuple(number for number, place in enumerate(places) if place.on_front),
    )
    return (compact(exhibit),)


def _against_latency(sweep: Sweep, places: Sequence[Place], number: int) -> Exhibit | None:
    points = _points(places, lambda place: place.cost)
    if not points:
        return None
    axis, models = points[0].figure, {point.model for point in points}
    exact = [
        (name, ms, figure.value)
        for name, (ms, figure) in originals(sweep).items()
        if ms is not None and figure is not None and figure.title == axis.title and name in models
    ]
    front = sum(point.on_front for point in points)
    return Exhibit(
        f"accuracy-latency{number or ''}",
        f"{front} of {_counted(len(points), 'build')} {'is' if front == 1 else 'are'} on the Pareto front",
        f"{_better(axis)} and further left is better. A colour is a model, a marker a recipe, a bar the 95 % interval "
        "of the time; the line joins the front, whose recipes are named; crosses are full precision.",
        paint=_paint(points, exact, "milliseconds for one image"),
        height=320,
    )


def _better(figure: Ranked) -> str:
    return "Higher" if figure.higher_is_better else "Lower"


def _against_size(places: Sequence[Place], number: int) -> Exhibit | None:
    points = _points(places, _megabytes)
    if not points:
        return None
    smallest = min(points, key=lambda point: (point.cost.value, -point.figure.gain))
    return Exhibit(
        f"accuracy-size{number or ''}",
        f"The smallest file is {smallest.model} with {smallest.recipe}: {size_text(round(smallest.cost.value * 1e6))}",
        f"{_better(points[0].figure)} and further left is better. A weight takes half a byte at 4 bits and fewer, "
        "and a byte else; engines of TensorRT hold a byte unless int4 was asked for.",
        paint=_paint(points, [], "megabytes"),
        height=300,
    )


def _megabytes(place: Place) -> Cost | None:
    size = place.line.size_bytes
    return None if size is None else Cost(size / 1e6, size / 1e6, size / 1e6)


def _points(places: Sequence[Place], cost: Callable[[Place], Cost | None]) -> list[_Point]:
    """Those whose cost and accuracy are known."""
    costs = [cost(place) for place in places]
    front = pareto([(found, place.gain) for found, place in zip(costs, places, strict=True)])
    return [
        _Point(place.cell.model, place.cell.recipe, found, place.line.figure, on)
        for place, found, on in zip(places, costs, front, strict=True)
        if found is not None and place.line.figure is not None
    ]


def _paint(points: Sequence[_Point], exact: Sequence[tuple[str, float, float]], axis: str) -> Callable[[Axes], None]:
    """Points coloured by model and marked by recipe, their front as a line, full precision as crosses."""
    colors = dict(zip(dict.fromkeys(point.model for point in points), cycle(SERIES), strict=False))
    markers = dict(zip(dict.fromkeys(point.recipe for point in points), cycle(MARKERS), strict=False))
    front = sorted((point for point in points if point.on_front), key=lambda point: point.cost)

    def paint(axes: Axes) -> None:
        axes.plot([p.cost.value for p in front], [p.figure.value for p in front], color=FAINT, linewidth=1.4, zorder=1)
        for p in points:
            color = colors[p.model]
            axes.hlines(
                p.figure.value, p.cost.low, min(p.cost.high, 2 * p.cost.value), color=color, linewidth=1.4, alpha=0.5
            )
            axes.scatter(
                [p.cost.value],
                [p.figure.value],
                marker=markers[p.recipe],
                s=62,
                color=color,
                edgecolor=SURFACE,
                zorder=3,
            )
        for name, x, y in exact:
            axes.scatter([x], [y], marker="x", s=60, color=colors[name], zorder=3)
        for name, color in colors.items():
            axes.plot([], [], color=color, marker="o", linestyle="none", label=name)
        name_axes(axes, axis, points[0].figure.axis)
        for name, marker in markers.items():
            axes.plot([], [], color=MUTED, marker=marker, linestyle="none", label=name)
        add_key(axes, columns=3)
        others = [(p.cost.value, p.figure.value) for p in points] + [(x, y) for _, x, y in exact]
        bars = [((p.cost.low, p.figure.value), (min(p.cost.high, 2 * p.cost.value), p.figure.value)) for p in points]
        tell_apart(axes, [(p.cost.value, p.figure.value, p.recipe) for p in front], others, bars)

    return paint


def _builds(sweep: Sweep) -> Exhibit:
    took = sum(cell.seconds or 0 for cell in sweep.cells)
    budgets = sweep.budgets if any(sweep.budgets) else None
    return Exhibit(
        "builds",
        f"{_counted(sum(cell.state == 'done' for cell in sweep.cells), 'build')} in {took:,.0f} s",
        "Each has a folder of its name beside this page, with a report of its own.",
        ("folder", "targets", "state", "images", "seconds", *(() if budgets is None else ("budget",))),
        tuple(
            (
                cell.name,
                ", ".join(cell.targets),
                cell.state,
                "" if cell.images is None else f"{cell.images:,}",
                "" if cell.seconds is None else f"{cell.seconds:.0f}",
                *(() if budgets is None else (budgets[number],)),
            )
            for number, cell in enumerate(sweep.cells)
        ),
    )
