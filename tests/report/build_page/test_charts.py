"""The charts of a build, read back from the axes that they painted."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page import charts
from fimaq_deploy.report.page.canvas import BAD, FAINT, MUTED, SERIES


def painted(paint: charts.Paint) -> Axes:
    axes = Figure().subplots()
    paint(axes)
    return axes


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """What is scattered, by its name in the key."""
    labelled = [found for found in axes.collections if not str(found.get_label()).startswith("_")]
    return {str(found.get_label()): [(float(x), float(y)) for x, y in found.get_offsets()] for found in labelled}


def test_full_precision_is_grey_and_no_two_rows_look_alike(full_report: r.Report) -> None:
    styles = charts.row_styles(full_report.rows)
    greys = {row.id for row in full_report.rows if styles[row.id].color in (MUTED, FAINT)}
    assert greys == {row.id for row in full_report.rows if row.precision != "quantized"}
    assert len(set(styles.values())) == len(full_report.rows)


def test_the_tradeoff_has_a_point_for_each_row_with_latency_and_the_original_as_a_line(full_report: r.Report) -> None:
    axes = painted(charts.tradeoff(full_report))
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "None"}
    assert drawn == {
        (row.latency[0].p50_ms, row.accuracy.top1) for row in full_report.rows if row.latency and row.accuracy
    }
    (level,) = (line for line in axes.lines if line.get_linestyle() != "None")
    assert set(level.get_ydata()) == {79.83}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("milliseconds for one image", "top-1, %")


def test_latency_is_of_an_image(full_report: r.Report) -> None:
    rows = [row for row in full_report.rows if row.latency]
    axes = painted(charts.latency_by_batch(full_report))
    solid = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "-"}
    assert solid == {row.title: [found.p50_ms / found.batch_size for found in row.latency] for row in rows}
    assert len(axes.lines) == 2 * len(rows), "each with its floor, dashed"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8", "32"]


def test_block_errors_before_and_after(full_report: r.Report) -> None:
    axes = painted(charts.block_errors(full_report.blocks[:2]))
    assert points(axes) == {"before": [(0.006, 0.0), (0.012, 1.0)], "after": [(0.002, 0.0), (0.004, 1.0)]}
    assert (names(axes), axes.get_xscale()) == (["blocks.0", "blocks.1"], "log")


def test_convergence_names_the_slowest_and_the_fastest(full_report: r.Report) -> None:
    curves: dict[str, Any] = {"slow": [(0, 2.0), (1, 1.8)], "fast": [(0, 8.0), (1, 0.8)], "mid": [(0, 1.0), (1, 0.5)]}
    curves["flat"], curves["dead"] = [], [(0, 0.0), (1, 1.0)]
    block = full_report.blocks[0]
    blocks = [block.model_copy(update={"name": name, "curve": curve}) for name, curve in curves.items()]
    axes = painted(charts.convergence(blocks))
    assert len(axes.lines) == 3, "nothing to divide by in the others"
    named = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}
    assert named == {"fast": [1.0, 0.1], "slow": [1.0, 0.9]}


def test_grids_are_drawn_by_kind_in_the_order_of_the_model(full_report: r.Report) -> None:
    grids = full_report.grids[:3]
    used = points(painted(charts.grid_use(grids)))
    assert used == {"weights": [(1, 80.0), (3, 80.0)], "activations": [(2, pytest.approx(100 * 252 / 255))]}
    assert points(painted(charts.clipping(grids))) == {"weights": [(1, 0.4), (3, 0.4)], "activations": [(2, 0.4)]}
    assert set(points(painted(charts.grid_use(grids[:1])))) == {"weights"}


@pytest.mark.parametrize(("scale", "unit"), [(1.0, ""), (1e-5, ", in 10⁻⁵")])
def test_small_sensitivities_have_a_unit_that_can_be_read(scale: float, unit: str) -> None:
    found = [r.Sensitivity(name="a", kind="block", alone=4 * scale, spared=-2 * scale)]
    axes = painted(charts.sensitivity(found))
    assert axes.get_xlabel() == f"Fisher loss of the logits{unit}"
    drawn = points(axes)
    assert drawn["quantized alone"] == [(pytest.approx(4), 0)] and drawn["spared"] == [(pytest.approx(-2), 0)]


def test_a_worse_block_of_the_plan_is_brown(full_report: r.Report) -> None:
    blocks = full_report.audits[0].blocks[2:5]
    axes = painted(charts.layer_plan(blocks))
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [SERIES[0], BAD, SERIES[0]]
    assert [bar.get_width() for bar in axes.patches] == [7, 7, 7]
    assert points(axes) == {"full-precision twin": [(8, 0), (8, 1), (8, 2)]}


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        ({}, False),
        ({"kernels": 9}, True),
        ({"kernels": 9, "twin_kernels": None}, False),
        ({"int8_gemms": 3}, True),
        ({"int8_gemms": 3, "weight_only_gemms": 1}, False),
        ({"dequantized_weights": 1}, True),
    ],
)
def test_what_makes_a_block_of_the_plan_worse(full_report: r.Report, change: dict[str, Any], worse: bool) -> None:
    assert charts.plan_is_worse(full_report.audits[0].blocks[0].model_copy(update=change)) == worse


def test_stages_that_are_equal_or_not_finite_have_no_place_on_a_logarithm(full_report: r.Report) -> None:
    values = {"a": 0.0, "b": float("nan"), "c": 0.5}
    found = [r.StageParity(name=name, largest_difference=value, differing=0.0) for name, value in values.items()]
    axes = painted(charts.parity([r.Parity(to="cpu", stages=found)], {"cpu": "CPU"}))
    assert (points(axes), names(axes)) == ({"CPU": [(0.5, 2.0)]}, ["a", "b", "c"])


def test_seconds_are_bars_with_their_figure(full_report: r.Report) -> None:
    axes = painted(charts.seconds(full_report.steps))
    assert [bar.get_width() for bar in axes.patches] == [1.0, 812.5]
    assert [text.get_text() for text in axes.texts] == ["1.0", "812.5"]
    assert names(axes) == ["load", "quantize"]
