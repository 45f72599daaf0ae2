"""Which format each layer got under a budget, and what that bought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from fimaq_deploy.report.page.canvas import SERIES, SURFACE, name_axes
from fimaq_deploy.report.page.parts import Exhibit, Section
from fimaq_deploy.report.schema import Mix, MixBuilt, MixPoint, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOLD = 3  # layers that spared most

_ABOUT = (
    "Every layer was measured alone in each format, and of all mixes the one with the least loss within the budget was "
    "taken. It stands in recipe.yaml, under layers, to be edited."
)


def mix(report: Report) -> Section:
    return Section("mix", "Formats", _ABOUT, () if report.mix is None else _exhibits(report.mix))


def _exhibits(found: Mix) -> tuple[Exhibit, ...]:
    speeds = found.speed_budget is not None
    counts = Counter(found.formats.values())
    told = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items()))
    spared = _bought(found)
    return (
        Exhibit(
            "mix-front",
            f"The best mixes for every budget; the chosen one takes {found.chosen.megabytes:.3g} MB, "
            f"{found.chosen.speed:.3g} times as fast in its products as in floats",
            f"Left and down is better. Losses of layers alone, added up. {_times_from(found)}".strip(),
            paint=_paint(found, speeds),
        ),
        *([_budget(found, found.built)] if found.built else []),
        Exhibit(
            "mix-layers",
            f"Of {len(found.formats)} layers {told}",
            f"What each layer loses alone in each format. {spared}",
            ("layer", "format", *_formats(found)),
            tuple(
                (name, one, *(f"{found.losses[name].get(other, 0):.3g}" for other in _formats(found)))
                for name, one in found.formats.items()
            ),
        ),
        *([_probes(found)] if found.probes else []),
    )


def _times_from(found: Mix) -> str:
    return f"Times of products: {found.costs}." if found.costs else ""


def _budget(found: Mix, built: MixBuilt) -> Exhibit:
    """What was asked for, foreseen and built."""
    sizes = ("model.onnx, MB", _number(found.size_budget), f"{found.chosen.megabytes:.4g}", f"{built.megabytes:.4g}")
    speeds = [
        (
            f"products on {one.target}, times as fast as in floats",
            _number(found.speed_budget),
            _foreseen(found),
            f"{one.speed:.3g} ({one.interval[0]:.3g} to {one.interval[1]:.3g})",
        )
        for one in built.times
    ]
    if not speeds and found.speed_budget is not None:
        told = _number(found.speed_budget), _foreseen(found), "not timed here"
        speeds = [("products, times as fast as in floats", *told)]
    return Exhibit(
        "mix-budget",
        f"What was built takes {built.megabytes:.4g} MB; {found.chosen.megabytes:.4g} were foreseen",
        "Times of the products of these layers alone, at their best, with a 95 % interval; what else a model computes "
        "is in the rows of the first table.",
        ("of", "budget", "foreseen", "built"),
        (sizes, *speeds),
    )


def _foreseen(found: Mix) -> str:
    """Of several targets a layer costs what it costs where that is most, so all of them are as fast or faster."""
    return f"{'at least ' if ';' in found.costs else ''}{found.chosen.speed:.3g}"


def _number(given: float | None) -> str:
    return "" if given is None else f"{given:g}"


def _formats(found: Mix) -> list[str]:
    return list(dict.fromkeys(one for each in found.losses.values() for one in each))


def _bought(found: Mix) -> str:
    """What the formats larger than the smallest bought."""
    cheapest = found.front[0]
    if found.chosen.loss >= cheapest.loss:
        return "It is the cheapest of all mixes."
    share = 100 * (1 - found.chosen.loss / cheapest.loss)
    more = found.chosen.megabytes - cheapest.megabytes
    cost = (
        f"{more:.3g} MB more"
        if more > 0 and found.speed_budget is None
        else f"{cheapest.speed / found.chosen.speed:.3g} times the time in products"
    )
    return f"Beside the cheapest mix {share:.0f} % of the loss was spared, for {cost}{_most_by(found)}."


def _most_by(found: Mix) -> str:
    """The layers that would lose most in their smallest format and have another one."""
    saved = {name: next(iter(each.values())) - each.get(found.formats[name], 0) for name, each in found.losses.items()}
    first = sorted((name for name, one in saved.items() if one > 0), key=lambda name: -saved[name])[:_TOLD]
    return f"; most of it by {', '.join(first)}" if first else ""


def _probes(found: Mix) -> Exhibit:
    together = all(one.loss is not None for one in found.probes)
    return Exhibit(
        "mix-probes",
        "What learned before the choice was made" if len(found.probes) > 1 else "The mix learned before it was chosen",
        "Measured with all layers together: the divergence of the outputs on calibration images, or what was lost on "
        "the evaluation images.",
        ("MB", "speed", "loss alone", "loss together" if together else "lost"),
        tuple(
            (
                f"{one.point.megabytes:.3g}",
                f"{one.point.speed:.3g}",
                f"{one.point.loss:.3g}",
                f"{one.loss:.3g}" if together else f"{one.drop:.2f}",
            )
            for one in found.probes
        ),
    )


def _paint(found: Mix, speeds: bool) -> Callable[[Axes], None]:
    def place(point: MixPoint) -> float:
        return 1 / point.speed if speeds else point.megabytes

    budget = 1 / found.speed_budget if found.speed_budget else found.size_budget

    def paint(axes: Axes) -> None:
        if budget is not None:
            axes.axvline(budget, color=SERIES[1], linewidth=1, linestyle=":")
        for one, other in pairwise(found.front):
            axes.plot([place(one), place(other)], [one.loss, other.loss], color=SERIES[0], linewidth=1.4, alpha=0.6)
        axes.scatter([place(one) for one in found.front], [one.loss for one in found.front], s=26, color=SERIES[0])
        axes.scatter([place(found.chosen)], [found.chosen.loss], s=90, color=SERIES[1], edgecolor=SURFACE, zorder=3)
        axes.set_ylim(bottom=0)
        name_axes(axes, "time of products, 1 is floats" if speeds else "megabytes of model.onnx", "loss")

    return paint
