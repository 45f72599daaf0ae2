"""Charts as SVG for a page: matplotlib draws, the page's style sheet colours.

Every colour is a role. matplotlib draws each role in a stand-in, and the stand-ins become the CSS variables of
templates/style.css, so that one drawing follows light, dark and print. Text stays text. Equal charts are equal bytes.

    def paint(axes):
        axes.plot([1, 8], [0.8, 3.1], color=SERIES[0], marker=MARKERS[0], label="ours")
        name_axes(axes, "batch size", "milliseconds")
        add_key(axes)

    svg = draw(paint, "latency", "Latency grows with the batch")
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 440  # CSS pixels; a phone shows a chart at 0.8 of that, a desktop at up to 1.3 times
FONT_SIZE = 11.5
MARKERS = ("o", "s", "D", "^", "v", "P")  # beside the colour, for whoever cannot tell colours apart

_ROLES = {
    "surface": "#fffffe",
    "ink": "#1b2026",
    "muted": "#59626d",
    "faint": "#8b939d",
    "rule": "#dfe1e0",
    "good": "#0b7158",
    "bad": "#b3430b",
    "series-1": "#0f6fb9",
    "series-2": "#d4580a",
    "series-3": "#0a8f6b",
    "series-4": "#b4568f",
    "series-5": "#b98500",
    "series-6": "#3f9dcc",
}
SURFACE, INK, MUTED, FAINT, RULE, GOOD, BAD, *SERIES = _ROLES.values()

_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_SIZE,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": FONT_SIZE,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markeredgecolor": SURFACE,
    "lines.markersize": 7.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    **{
        f"{axis}tick.{name}": value
        for axis in "xy"
        for name, value in (
            ("color", RULE),
            ("labelcolor", MUTED),
            ("labelsize", FONT_SIZE),
            ("major.size", 0),
            ("minor.size", 0),
        )
    },
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw(paint: Callable[[Axes], None], name: str, title: str, height: float = 250) -> str:
    """What `paint` draws, as an `<svg>` element that can stand in an HTML page beside others.

    name: unique on the page, the prefix of every id inside. title: what is seen, for whoever does not see it.
    height: in CSS pixels.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", {**_SETTINGS, "svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(text.getvalue(), name, title)


def name_axes(axes: Axes, x: str, y: str = "") -> None:
    """What the axes measure, with units. An axis of names needs none."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def add_key(axes: Axes, columns: int = 2) -> None:
    """The legend, above the drawing and flush with its left edge."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, columnspacing=1.4, handlelength=1.4)


def list_names(axes: Axes, names: Sequence[str], length: int = 24) -> None:
    """Names down the left side, the first on top, at y = 0, 1, … None is longer than `length` signs."""
    axes.set_yticks(range(len(names)), [shorten(name, length) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def list_height(count: int) -> float:
    """How high a chart with that many names is, in CSS pixels."""
    return 86 + 19 * count


def shorten(name: str, length: int = 24) -> str:
    """A long name without its beginning: the end tells layers apart."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def use_log_scale(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Logarithmic, for data that is drawn already: ticks at 1, 2, 5 where little is seen, else at powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{axis}scale": "log"})
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    low, high = sorted(chosen.get_view_interval())
    chosen.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,), numticks=7))
    plain = low > 5e-4 and high < 2e4
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if plain else power_text(value)))
    chosen.set_minor_formatter(NullFormatter())


def power_below(value: float) -> float:
    """The largest power of ten that is not above a positive value; 1 for zero and for values from 0.1 to 1,000."""
    return 1.0 if value <= 0 or 0.1 <= value < 1000 else 10.0 ** math.floor(math.log10(value))


def power_text(value: float) -> str:
    """A tick of a logarithmic axis, as in 10⁻⁵ or 2·10⁻⁵."""
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _for_page(svg: str, name: str, title: str) -> str:
    """Without what only a file of its own needs: header, metadata, style; with ids and colours that fit the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^\";]*(; )?", "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size
    opening = f'<svg role="img" aria-label="{html.escape(title)}" {size[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    svg = opening + svg[svg.index(">") + 1 :]
    for role, stand_in in _ROLES.items():
        svg = svg.replace(stand_in, f"var(--{role})")
    return re.sub(r"\n\s*", "\n", svg).strip()
