"""The charts of one build. Each paints on axes that `canvas.draw` provides; sections.py says what they show.

A row of the report keeps its colour and its marker through all charts: full precision is grey, the rest coloured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from fimaq_deploy.report.figures import Reading, plotted
from fimaq_deploy.report.page.canvas import (
    BAD,
    FAINT,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    SURFACE,
    add_key,
    list_names,
    name_axes,
    power_below,
    power_text,
    shorten,
    use_log_scale,
)
from fimaq_deploy.report.schema import AuditBlock, Block, GridUse, Latency, Parity, Report, Row, Sensitivity, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Paint = Callable[["Axes"], None]


class Style(NamedTuple):
    color: str
    marker: str


class _Point(NamedTuple):
    """A row and the figure of it that is drawn."""

    row: Row
    reading: Reading

    @property
    def x(self) -> float:
        return self.row.latency[0].p50_ms

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.reading.figure.interval

    @property
    def y(self) -> float:
        assert self.reading.value is not None, "`plotted` finds none that is not finite"
        return self.reading.value


def row_styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Colour and marker of each row by its id."""
    greys, colours = cycle((MUTED, FAINT)), cycle(SERIES)
    return {
        row.id: Style(next(colours if row.precision == "quantized" else greys), MARKERS[number % len(MARKERS)])
        for number, row in enumerate(rows)
    }


def tradeoff(report: Report) -> Paint:
    """The figure that is judged over the latency of one image, with its 95 % interval; the original as a line."""
    points = [_Point(row, found) for row in report.rows if row.latency and (found := plotted(report, row))]
    styles = row_styles([row for row in report.rows if row.latency])
    original = plotted(report, report.baseline)

    def paint(axes: Axes) -> None:
        for point in points:
            _draw_point(axes, point, styles[point.row.id])
        if original and original.value is not None:
            axes.axhline(original.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        meaning = points[0].reading.meaning
        unit = f", {meaning.unit}" if meaning.unit else ""
        name_axes(axes, f"milliseconds for {_images(points[0].row.latency[0].batch_size)}", f"{meaning.title}{unit}")
        axes.set_xlim(0, 1.15 * max(point.x for point in points))
        add_key(axes)

    return paint


def latency_by_batch(report: Report) -> Paint:
    """Milliseconds an image over the batch size, from the median up to p90, with the roofline floor dashed."""
    rows = [row for row in report.rows if row.latency]
    sizes = sorted({latency.batch_size for row in rows for latency in row.latency})
    styles = row_styles(rows)

    def paint(axes: Axes) -> None:
        for number, row in enumerate(rows):
            shift = 0.07 * (number - (len(rows) - 1) / 2)
            _latency_line(axes, row, styles[row.id], {size: place + shift for place, size in enumerate(sizes)})
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlim(-0.5, len(sizes) - 0.5)
        axes.set_ylim(0, min(axes.get_ylim()[1], 2 * _slowest(rows)))
        axes.grid(visible=False, axis="x")
        name_axes(axes, "batch size", "milliseconds an image")
        add_key(axes)

    return paint


def block_errors(blocks: Sequence[Block]) -> Paint:
    """Each block's error before and after reconstruction, on a logarithmic scale."""

    def paint(axes: Axes) -> None:
        places = range(len(blocks))
        before, after = [block.loss_before for block in blocks], [block.loss_after for block in blocks]
        axes.hlines(places, before, after, color=FAINT, linewidth=2, zorder=1)
        axes.scatter(before, places, s=42, color=SURFACE, edgecolor=MUTED, linewidth=1.6, label="before")
        axes.scatter(after, places, s=48, color=SERIES[0], edgecolor=SURFACE, label="after", zorder=3)
        list_names(axes, [block.name for block in blocks])
        use_log_scale(axes, "x")
        name_axes(axes, "squared error relative to the output")
        add_key(axes)

    return paint


def convergence(blocks: Sequence[Block]) -> Paint:
    """Each block's error relative to where it began; the slowest and the fastest are named."""
    curves = {block.name: _relative(block) for block in blocks if _relative(block)}
    ends = sorted(curves, key=lambda name: curves[name][-1][1])
    named = {ends[0]: Style(SERIES[0], ""), ends[-1]: Style(SERIES[1], "")}

    def paint(axes: Axes) -> None:
        for name, curve in curves.items():
            told = named.get(name)
            axes.plot(
                *zip(*curve, strict=True),
                color=told.color if told else FAINT,
                linewidth=2.2 if told else 1,
                alpha=1 if told else 0.7,
                zorder=3 if told else 2,
                label=shorten(name) if told else None,
            )
        use_log_scale(axes, "y")
        axes.locator_params(axis="x", integer=True)
        name_axes(axes, "iteration", "error relative to its first value")
        add_key(axes)

    return paint


def grid_use(grids: Sequence[GridUse]) -> Paint:
    """The share of its integers that each tensor uses, in the order of the model."""

    def paint(axes: Axes) -> None:
        for kind, color, marker in (("weight", SERIES[0], "o"), ("activation", SERIES[1], "s")):
            shares = [(place, used_share(grid)) for place, grid in enumerate(grids, 1) if grid.kind == kind]
            if shares:
                axes.scatter(*_columns(shares), s=34, color=color, marker=marker, label=f"{kind}s")
        axes.set_ylim(0, 105)
        name_axes(axes, "tensor, in the order of the model", "integers used, %")
        add_key(axes)

    return paint


def clipping(grids: Sequence[GridUse]) -> Paint:
    """The share of the values beyond the grid, in the order of the model."""

    def paint(axes: Axes) -> None:
        for kind, color, marker in (("weight", SERIES[0], "o"), ("activation", SERIES[1], "s")):
            shares = [(place, grid.clipped) for place, grid in enumerate(grids, 1) if grid.kind == kind]
            if shares:
                places, clipped = _columns(shares)
                axes.vlines(places, 0, clipped, color=color, linewidth=1, alpha=0.5)
                axes.scatter(places, clipped, s=30, color=color, marker=marker, label=f"{kind}s", zorder=3)
        axes.set_ylim(bottom=0)
        name_axes(axes, "tensor, in the order of the model", "values clipped, %")
        add_key(axes)

    return paint


def sensitivity(found: Sequence[Sensitivity]) -> Paint:
    """Loss with one quantized alone, and what is spared when one is left out."""
    unit = power_below(max(max(abs(one.alone), abs(one.spared)) for one in found))

    def paint(axes: Axes) -> None:
        places = range(len(found))
        alone, spared = [one.alone / unit for one in found], [one.spared / unit for one in found]
        axes.hlines(places, 0, alone, color=SERIES[0], linewidth=2, alpha=0.4)
        axes.scatter(alone, places, s=46, color=SERIES[0], edgecolor=SURFACE, label="quantized alone", zorder=3)
        axes.scatter(
            spared,
            places,
            s=34,
            marker="D",
            label="spared",
            zorder=4,
            color=SURFACE,
            edgecolor=SERIES[1],
            linewidth=1.6,
        )
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.locator_params(axis="x", nbins=6)
        list_names(axes, [one.name for one in found], 31)
        name_axes(axes, "Fisher loss of the logits" + ("" if unit == 1 else f", in {power_text(unit)}"))
        add_key(axes)

    return paint


def layer_plan(blocks: Sequence[AuditBlock]) -> Paint:
    """Kernels of each block, and of its full-precision twin where that was compiled."""

    def paint(axes: Axes) -> None:
        places = range(len(blocks))
        kernels = [block.kernels for block in blocks]
        colors = [BAD if plan_is_worse(block) else SERIES[0] for block in blocks]
        axes.barh(places, kernels, height=0.62, color=colors, alpha=0.85)
        twins = [(block.twin_kernels, place) for place, block in enumerate(blocks) if block.twin_kernels is not None]
        if twins:
            axes.scatter(
                *_columns(twins),
                marker="|",
                s=190,
                linewidth=2.4,
                color=INK,
                label="full-precision twin",
                zorder=3,
            )
            add_key(axes)
        list_names(axes, [block.name for block in blocks])
        name_axes(axes, "kernels")

    return paint


def parity(pairs: Sequence[Parity], titles: dict[str, str]) -> Paint:
    """The largest difference at each stage. Equal and not finite values have no place on the axis and are left out."""
    names = list(dict.fromkeys(stage.name for pair in pairs for stage in pair.stages))

    def paint(axes: Axes) -> None:
        for number, pair in enumerate(pairs):
            points = [(s.largest_difference, names.index(s.name)) for s in pair.stages if s.largest_difference]
            axes.scatter(
                [x for x, _ in points],
                [y for _, y in points],
                s=44,
                color=SERIES[number % 6],
                marker=MARKERS[number % 6],
                label=titles.get(pair.to, pair.to),
            )
        list_names(axes, names)
        use_log_scale(axes, "x")
        name_axes(axes, "largest difference of an output")
        add_key(axes)

    return paint


def seconds(steps: Sequence[Step]) -> Paint:
    """How long each step took."""

    def paint(axes: Axes) -> None:
        longest = max(step.seconds for step in steps)
        axes.barh(range(len(steps)), [step.seconds for step in steps], height=0.62, color=SERIES[0], alpha=0.85)
        for place, step in enumerate(steps):
            axes.text(step.seconds + longest / 80, place, f"{step.seconds:.1f}", va="center", color=MUTED)
        axes.set_xlim(0, 1.12 * longest)
        list_names(axes, [step.name for step in steps])
        name_axes(axes, "seconds")

    return paint


def used_share(grid: GridUse) -> float:
    """Percent of the integers of a grid that occur."""
    return 100 * grid.used_levels / grid.levels


def plan_is_worse(block: AuditBlock) -> bool:
    """More kernels than full precision, a GEMM without integers, or a weight dequantized while the engine runs."""
    more = block.twin_kernels is not None and block.kernels > block.twin_kernels
    few_bits = block.int8_gemms + block.fp8_gemms + block.fp4_gemms + block.weight_only_gemms
    return more or few_bits < block.gemms or block.dequantized_weights > 0


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """All x and all y."""
    return [x for x, _ in points], [y for _, y in points]


def _relative(block: Block) -> list[tuple[int, float]]:
    """The curve of a block over its first value; empty where there is none to divide by."""
    if not block.curve or block.curve[0][1] <= 0:
        return []
    first = block.curve[0][1]
    return [(iteration, value / first) for iteration, value in block.curve]


def _draw_point(axes: Axes, point: _Point, style: Style) -> None:
    if point.interval:
        axes.vlines(point.x, *point.interval, color=style.color, linewidth=1.4, alpha=0.6)
    axes.plot(
        [point.x],
        [point.y],
        label=point.row.title,
        color=style.color,
        marker=style.marker,
        markersize=9,
        linestyle="none",
        zorder=3,
    )


def _latency_line(axes: Axes, row: Row, style: Style, places: dict[int, float]) -> None:
    found = sorted(row.latency, key=lambda latency: latency.batch_size)
    x = [places[latency.batch_size] for latency in found]
    median = [latency.p50_ms / latency.batch_size for latency in found]
    axes.vlines(x, median, [latency.p90_ms / latency.batch_size for latency in found], color=style.color, alpha=0.5)
    axes.plot(x, median, color=style.color, marker=style.marker, label=row.title)
    floor = [(place, value) for place, latency in zip(x, found, strict=True) if (value := _floor(latency)) is not None]
    if floor:
        axes.plot(*zip(*floor, strict=True), color=style.color, linewidth=1.4, linestyle=(0, (2, 2)))


def _slowest(rows: Sequence[Row]) -> float:
    """The longest median for an image."""
    return max(latency.p50_ms / latency.batch_size for row in rows for latency in row.latency)


def _floor(latency: Latency) -> float | None:
    return None if latency.floor_ms is None else latency.floor_ms / latency.batch_size


def _images(batch_size: int) -> str:
    return "one image" if batch_size == 1 else f"{batch_size} images"
