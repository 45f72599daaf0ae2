"""Where two runtimes part, stage by stage."""

from __future__ import annotations

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.block_parity import parity
from fimaq_deploy.report.page.parts import Exhibit


def shown(full_report: r.Report, *pairs: r.Parity) -> Exhibit:
    (exhibit,) = parity(full_report.model_copy(update={"parity": list(pairs)})).exhibits
    return exhibit


def stage(name: str, difference: float, **more: float) -> r.StageParity:
    return r.StageParity.model_validate(
        {"name": name, "largest_difference": difference, "differing": 0.25, **more},
    )


def test_the_first_parting_is_the_title(full_report: r.Report) -> None:
    (exhibit,) = parity(full_report).exhibits
    assert exhibit.title == "TensorRT-RTX parts at blocks.7"
    assert len(exhibit.rows) == 24, "12 stages in two runtimes"
    assert exhibit.paint is not None


def test_a_stage_is_told_with_its_steps(full_report: r.Report) -> None:
    pair = r.Parity(to="tensorrt-rtx", stages=[stage("a", 0.125, largest_step=2, flipped=1.5), stage("b", 0.5)])
    exhibit = shown(full_report, pair)
    assert exhibit.title == "Every stage agrees with fake-quant within the tolerance"
    assert exhibit.rows == (
        ("a", "TensorRT-RTX", "0.12", "0.25", "2", "1.5"),
        ("b", "TensorRT-RTX", "0.5", "0.25", "", ""),
    )


def test_a_runtime_without_a_row_goes_by_its_id(full_report: r.Report) -> None:
    assert shown(full_report, r.Parity(to="elsewhere", stages=[stage("a", 0.5)])).rows[0][1] == "elsewhere"


def test_what_is_not_finite_is_told_and_has_no_place_in_the_chart(full_report: r.Report) -> None:
    exhibit = shown(full_report, r.Parity(to="x", stages=[stage("a", float("nan")), stage("b", 0.0)]))
    assert [row[2] for row in exhibit.rows] == ["not finite", "0"]
    assert exhibit.paint is None
    assert "without a mark" not in exhibit.note


def test_pairs_without_stages_are_nothing_to_show(full_report: r.Report) -> None:
    empty = full_report.model_copy(update={"parity": [r.Parity(to="x", stages=[])]})
    assert parity(empty).exhibits == ()
