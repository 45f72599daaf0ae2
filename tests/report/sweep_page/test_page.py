"""The page of a sweep: what is told of its builds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fimaq_deploy.report.page.markdown import page_markdown
from fimaq_deploy.report.page.parts import Exhibit, Page
from fimaq_deploy.report.sweep_page.page import HEADER, cells, headline, sweep_page, to_html
from fimaq_deploy.report.sweep_page.records import Cell, Line, Sweep, leaderboard

RECORDED = Path(__file__).parents[1] / "data" / "sweep.json"
Make = Callable[..., Cell]


def sweep_of(*cells: Cell) -> Sweep:
    return Sweep(
        name="trial", created="2026-01-02T03:04:05", command="fimaq-deploy sweep x", machine="m", cells=[*cells]
    )


def exhibits(page: Page) -> dict[str, Exhibit]:
    return {exhibit.id: exhibit for section in page.sections for exhibit in section.exhibits}


def test_a_row_that_was_not_run_says_why(make: Make) -> None:
    absent = Line(id="tensorrt", title="TensorRT", not_run="no NVIDIA driver", size_bytes=5)
    sweep = sweep_of(make("a", "vit", 94, 2.0), make("b", "vit", 93, 2.0, shipped=[absent]))
    board = exhibits(sweep_page(sweep))["board"]
    assert "TensorRT: not run: no NVIDIA driver." in board.note
    assert board.rows[-1][3] == "not run"


def test_the_ends_of_the_front_are_in_the_headline(make: Make) -> None:
    both = sweep_of(make("a", "vit", 94, 2.0), make("b", "swin", 90, 4.0))
    assert headline(both) == (
        "2 builds of 2 models and 2 recipes: vit with a (94.00 % top-1, 5.00 ms) is the most accurate, "
        "swin with b (90.00 % top-1, 2.50 ms) the fastest."
    )
    one = sweep_of(make("a", "vit", 94, 2.0), make("b", "swin", 90, 1.0))
    assert headline(one).endswith("a (94.00 % top-1, 5.00 ms) is the most accurate, and none is clearly faster.")
    assert headline(sweep_of(make("a", "vit", 1, 1, shipped=[]))).endswith(
        "nothing that could be compared was run here."
    )


def test_a_missed_gate_is_told(make: Make) -> None:
    page = sweep_page(sweep_of(make("a", "vit", 90, 2.0, failures=["loses 5 points"])))
    assert (page.tone, page.reasons) == ("bad", ["a: loses 5 points"])


def test_a_recorded_sweep_reads_back_and_has_its_page() -> None:
    """Two models and four recipes, as `fimaq-deploy sweep` wrote them."""
    text = RECORDED.read_text(encoding="utf-8")
    sweep = Sweep.model_validate(json.loads(text))
    assert Sweep.model_validate_json(sweep.to_json()) == sweep
    assert sweep.cells[0].shipped[0].closeness is None, "it was recorded before there was one"
    assert len({cell.model for cell in sweep.cells}) >= 2
    assert len({cell.recipe for cell in sweep.cells}) >= 4
    page = sweep_page(sweep)
    assert {"accuracy-latency", "accuracy-size", "board", "builds"} == set(exhibits(page))
    assert to_html(page).count("<svg") == 2
    said = page_markdown(page)
    assert all(cell.name in said for cell in sweep.cells)
    assert exhibits(page)["board"].rows[0][-1] == "●", "the most accurate is always on the front"


def test_a_place_is_a_line_with_a_dot_on_the_front(make: Make) -> None:
    first, second = leaderboard(sweep_of(make("a", "vit", 94, 2.0), make("b", "vit", 90, 1.0)))
    rest = ("-1.00", "", "5.00", "2.00×", "500 kB", "●")
    assert cells(first) == ("vit", "a", "ONNX Runtime CPU", "94.00 % top-1", *rest)
    assert cells(second)[-1] == ""
    assert len(cells(first)) == len(HEADER)


def test_a_budget_stands_beside_its_build(make: Make) -> None:
    mixed, fast = make("a", "vit", 94, 2.0, size_budget=0.25), make("b", "vit", 93, 3.0, speed_budget=1.5)
    builds = exhibits(sweep_page(sweep_of(mixed, fast, make("c", "vit", 92, 4.0))))["builds"]
    assert builds.header[-1] == "budget"
    assert [row[-1] for row in builds.rows] == ["0.25 MB", "1.5×", ""]
    assert "budget" not in exhibits(sweep_page(sweep_of(make("c", "vit", 92, 4.0))))["builds"].header


def test_builds_to_come_are_counted(make: Make) -> None:
    waiting = make("b", "vit", 1, 1.0, shipped=[]).model_copy(update={"state": "waiting"})
    page = sweep_page(sweep_of(make("a", "vit", 94, 2.0), waiting))
    assert (page.status, page.tone) == ("1 build still to come", "plain")
    assert sweep_page(sweep_of(make("a", "vit", 94, 2.0))).status == "Every build was made"


def test_the_smallest_file_and_the_size_of_the_front_are_titles(make: Make) -> None:
    found = exhibits(sweep_page(sweep_of(make("a", "vit", 94, 2.0), make("b", "swin", 90, 1.0))))
    assert found["accuracy-size"].title == "The smallest file is vit with a: 500 kB"
    assert found["accuracy-latency"].title == "1 of 2 builds is on the Pareto front"
    assert found["builds"].title == "2 builds in 6 s"


def test_a_sweep_of_nothing_yet_has_its_list_of_builds(make: Make) -> None:
    cell = make("a", "vit", 1, 1.0, shipped=[]).model_copy(update={"state": "waiting", "seconds": None, "images": None})
    page = sweep_page(sweep_of(cell))
    assert set(exhibits(page)) == {"builds"}
    assert exhibits(page)["builds"].rows == (("a", "onnxruntime-cpu", "waiting", "", ""),)
