"""What a page shows, apart from how: `report.html` and `report.md` are written from the same parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Card:
    """One figure that a reader looks for first. note: what it is measured against."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Panel:
    """One of several drawings of an exhibit. Arguments as of the exhibit's own."""

    title: str
    paint: Callable[[Axes], None]
    height: float = 250


@dataclass(frozen=True)
class Exhibit:
    """A finding, with the figures it rests on and perhaps a chart of them.

    id: unique on its page; letters, digits and hyphens.
    title: what is seen, as a sentence without its full stop.
    note: how to read it, with the units.
    header, rows: a table of text; a page folds it away where there is a chart.
    marked: numbers of the rows that matter most.
    panels: drawings in pairs, side by side where there is room and below each other on a phone.
    paint: draws the chart of the same figures, with the helpers of canvas.py; height: its height in CSS pixels.
    """

    id: str
    title: str
    note: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    marked: tuple[int, ...] = ()
    panels: tuple[Panel, ...] = ()
    paint: Callable[[Axes], None] | None = None
    height: float = 250

    @property
    def figures(self) -> list[bool]:
        """Which columns hold figures, to be aligned on the right."""
        return [_holds_figures([row[column] for row in self.rows]) for column in range(len(self.header))]


@dataclass(frozen=True)
class Section:
    """Exhibits that belong together. id: unique on its page."""

    id: str
    title: str
    text: str = ""
    exhibits: tuple[Exhibit, ...] = ()


@dataclass(frozen=True)
class Page:
    """Everything that `base.html.j2` shows.

    kind: what sort of page it is, in a word or two.
    status: the verdict in a few words, in the colour of its tone; headline: the verdict in a sentence or two.
    reasons: what speaks against it, a sentence each.
    command: what makes the page again.
    """

    kind: str
    heading: str
    status: str
    headline: str
    created: str
    command: str
    tone: Tone = "plain"
    reasons: Sequence[str] = ()
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = ()


def compact(exhibit: Exhibit) -> Exhibit:
    """Without the columns of its table that hold nothing."""
    kept = [place for place in range(len(exhibit.header)) if any(row[place] for row in exhibit.rows)]
    rows = tuple(tuple(row[place] for place in kept) for row in exhibit.rows)
    return replace(exhibit, header=tuple(exhibit.header[place] for place in kept), rows=rows)


def _holds_figures(cells: Sequence[str]) -> bool:
    """Whether at least half of the cells that are not empty begin with a number."""
    numbers = sum(cell.lstrip("+-−<≤≥ ")[:1].isdigit() for cell in cells)
    return numbers > 0 and 2 * numbers >= sum(bool(cell) for cell in cells)
