from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.sweep_page.page import sweep_page, to_html
from fimaq_deploy.report.sweep_page.records import (
    Cell,
    Cost,
    Ranked,
    Sweep,
    finished_cell,
    leaderboard,
    originals,
    pareto,
)

RECORDED = Path(__file__).parents[1] / "data" / "sweep.json"

Make = Callable[..., Cell]


def exact(cost: float) -> Cost:
    return Cost(cost, cost, cost)


def test_the_front_of_exact_costs_is_what_nothing_dominates() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 12, (60, 2)).tolist()

    def dominated(cost: float, gain: float) -> bool:
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)

    found = pareto([(exact(cost), gain) for cost, gain in points])
    assert found == [not dominated(cost, gain) for cost, gain in points]
    assert any(found)


def test_a_gain_that_noise_explains_is_not_on_the_front() -> None:
    """The second is faster than the first by less than both intervals, and loses accuracy."""
    accurate, noisy, faster = Cost(10, 9, 11), Cost(9.5, 8, 12), Cost(5, 4.5, 5.5)
    assert pareto([(accurate, 90.0), (noisy, 85.0), (faster, 80.0)]) == [True, False, True]
    assert pareto([(exact(10), 90.0), (exact(9.5), 85.0), (exact(5), 80.0)]) == [True, True, True]


def test_what_is_not_known_is_not_on_the_front() -> None:
    assert pareto([(None, 99.0), (exact(1), None), (exact(2), 50.0)]) == [False, False, True]
    assert pareto([]) == []


def sweep_of(*cells: Cell) -> Sweep:
    return Sweep(
        name="trial", created="2026-01-02T03:04:05", command="fimaq-deploy sweep x", machine="m", cells=[*cells]
    )


def test_cells_of_other_minutes_compare_by_their_paired_speed_up(make: Make) -> None:
    """The machine was twice as slow when the second cell ran; its own ratio was measured in turns."""
    sweep = sweep_of(make("a", "vit", 94, 2.0, base_ms=10), make("b", "vit", 93, 2.5, base_ms=20))
    places = leaderboard(sweep)
    assert [place.milliseconds for place in places] == [7.5, 6.0]
    assert [place.on_front for place in places] == [True, True]
    assert originals(sweep) == {"vit": (15.0, Ranked(title="top-1", unit="%", value=95.0))}


def test_the_leaderboard_begins_with_the_most_accurate(make: Make) -> None:
    sweep = sweep_of(make("slow", "vit", 90, 1.0), make("best", "swin", 94, 1.5), make("fast", "vit", 90, 3.0))
    assert [place.cell.name for place in leaderboard(sweep)] == ["best", "fast", "slow"]


def ranked(title: str, value: float, *, higher: bool = True) -> Ranked:
    return Ranked(title=title, value=value, higher_is_better=higher)


def lines(make: Make, name: str, speedup: float, figure: Ranked | None) -> Cell:
    cell = make(name, name[:3], 1.0, speedup)
    update = {"top1": None, "ranked": figure}
    return cell.model_copy(
        update={
            "shipped": [line.model_copy(update=update) for line in cell.shipped],
            "original": cell.original and cell.original.model_copy(update=update),
        }
    )


def test_models_without_classes_are_ranked_by_what_they_have(make: Make) -> None:
    """Cosines high, errors low, each kind for itself; a kind that is faster does not push another off the front."""
    sweep = sweep_of(
        lines(make, "emb-bad", 2.0, ranked("cosine", 0.9)),
        lines(make, "err-bad", 9.0, ranked("rel. error", 0.5, higher=False)),
        lines(make, "emb-good", 2.0, ranked("cosine", 0.99)),
        lines(make, "non", 2.0, None),
        lines(make, "err-good", 9.0, ranked("rel. error", 0.1, higher=False)),
    )
    places = leaderboard(sweep)
    assert [place.cell.name for place in places] == ["emb-good", "emb-bad", "err-good", "err-bad", "non"]
    assert [place.cell.name for place in places if place.on_front] == ["emb-good", "err-good"]
    page = sweep_page(sweep)
    found = [exhibit.id for section in page.sections for exhibit in section.exhibits]
    assert found[:4] == ["accuracy-latency", "accuracy-size", "accuracy-latency1", "accuracy-size1"]
    assert page.headline.endswith(
        "emb with emb-good (0.9900 cosine, 5.00 ms) is the most accurate, and none is clearly faster."
    )
    assert to_html(page).count("<svg") == 4


def test_cells_without_a_build_have_no_place(make: Make) -> None:
    failed = make("bad", "vit", 1, 1.0, shipped=[]).model_copy(update={"state": "failed", "error": "no such file"})
    sweep = sweep_of(make("good", "vit", 94, 2.0), failed)
    assert [place.cell.name for place in leaderboard(sweep)] == ["good"]
    page = sweep_page(sweep)
    assert (page.status, page.tone) == ("1 of 2 builds failed", "bad")
    assert page.reasons == ["bad failed: no such file"]


def test_a_cell_is_filled_from_its_report(full_report: r.Report) -> None:
    waiting = Cell(name="a", model="deit_s", recipe="w4a8", targets=["tensorrt-rtx"], identity="x")
    cell = finished_cell(waiting, full_report, ["a gate"], 12.0)
    assert (cell.state, cell.seconds, cell.images, cell.failures) == ("done", 12.0, 50_000, ["a gate"])
    assert cell.original is not None
    assert (cell.original.id, cell.original.p50_ms) == ("onnx-fp32", 21.0)
    assert [line.id for line in cell.shipped] == ["onnxruntime-cpu", "tensorrt-rtx", "openvino-cpu"]
    assert cell.shipped[0].drop == pytest.approx(0.52)
    assert cell.shipped[2].not_run == "the openvino package is not installed"
