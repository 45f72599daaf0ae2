"""What breaks a build, for every kind of output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.verdict import cards, status, verdict
from fimaq_deploy.report.gates import failures
from fimaq_deploy.report.schema import Figure, Mix

Answering = Callable[..., r.Report]

# A kind, the figures of a ruined and of a close model.
KINDS = [
    ("classes", {"agreement": 19.0, "kappa": 0.1, "cosine": 0.2}, {"agreement": 99.2, "kappa": 0.99, "cosine": 0.999}),
    ("embedding", {"cosine": 0.7, "recall1": 20.0}, {"cosine": 0.9991, "recall1": 98.0}),
    ("multilabel", {"agreement": 76.0, "kappa": 0.5}, {"agreement": 99.1, "kappa": 0.98}),
    ("regression", {"concordance": 0.4}, {"concordance": 0.9991}),
    ("dense", {"cosine": 0.8, "relative_error": 60.0}, {"cosine": 0.9991, "relative_error": 3.0}),
]


@pytest.mark.parametrize(("kind", "ruined", "close"), KINDS)
def test_a_ruined_model_reads_as_ruined_and_fails_without_labels_and_thresholds(
    answering: Answering, kind: str, ruined: dict[str, float], close: dict[str, float]
) -> None:
    report = answering(kind, **ruined)
    said, tone = status(report)
    assert (said.split(":")[0], tone) == ("Ruined", "bad")
    assert "ONNX Runtime CPU: ruined, " in verdict(report)
    assert "100" not in verdict(report)
    (told,) = failures(report, None)
    assert told.startswith("ONNX Runtime CPU is ruined: ")
    assert cards(report)[0].tone == "bad"


@pytest.mark.parametrize(("kind", "ruined", "close"), KINDS)
def test_a_close_model_is_told_by_its_headline_and_passes(
    answering: Answering, kind: str, ruined: dict[str, float], close: dict[str, float]
) -> None:
    report = answering(kind, **close)
    assert failures(report, None) == []
    said, tone = status(report)
    assert (said.split(":")[0], tone) == ("Held to no threshold", "plain")
    assert "99" in said and "PyTorch FP32" in said and "PyTorch FP32" in verdict(report)
    assert cards(report)[0].tone == "plain"


@pytest.mark.parametrize(
    ("kind", "gate", "limit", "values", "missed"),
    [
        ("classes", "min_agreement", 95, {"agreement": 94.9}, True),
        ("classes", "min_agreement", 95, {"agreement": 95.0}, False),
        ("classes", "min_cosine", 0.99, {"agreement": 100.0, "cosine": 0.98}, True),
        ("embedding", "min_cosine", 0.99, {"cosine": 0.9899}, True),
        ("embedding", "min_cosine", 0.99, {"cosine": 0.99}, False),
        ("embedding", "min_agreement", 90, {"cosine": 1.0, "recall1": 80.0}, True),
        ("multilabel", "min_agreement", 99, {"agreement": 98.0}, True),
        ("regression", "min_cosine", 0.99, {"concordance": 0.98}, True),
        ("dense", "min_cosine", 0.99, {"cosine": 0.98}, True),
        ("dense", "min_cosine", 0.96, {"cosine": 0.9599}, True),
    ],
)
def test_gates_without_labels(
    answering: Answering, kind: str, gate: str, limit: float, values: dict[str, Any], missed: bool
) -> None:
    report = answering(kind, **values).model_copy(update={gate: limit})
    found = failures(report, None)
    assert bool(found) == missed
    assert all(f"--{gate.replace('_', '-')}" in text and "PyTorch FP32" in text for text in found)
    assert status(report)[0].split(":")[0] == ("Does not hold" if missed else "Holds")


def test_a_figure_that_is_not_finite_is_ruined(answering: Answering) -> None:
    report = answering("embedding", cosine=None)
    assert "ruined, cosine not finite with PyTorch FP32" in verdict(report)
    assert len(failures(report, None)) == 1
    (gated,) = failures(report.model_copy(update={"min_cosine": -1.0}), None)
    assert "cosine not finite with PyTorch FP32, less than the -1 of --min-cosine" in gated


@pytest.mark.parametrize(("interval", "ruined"), [((0.88, 0.94), True), ((0.88, 0.96), False)])
def test_a_floor_counts_beyond_chance(answering: Answering, interval: tuple[float, float], ruined: bool) -> None:
    assert bool(failures(answering("embedding", cosine=(0.91, interval)), None)) == ruined


def test_a_threshold_replaces_the_floor_and_the_words_stay(answering: Answering) -> None:
    report = answering("embedding", cosine=0.5).model_copy(update={"min_cosine": 0.0})
    assert failures(report, None) == []
    assert status(report) == ("Ruined, and accepted as it is", "bad")
    assert "ruined, cosine 0.5000" in verdict(report)


@pytest.mark.parametrize(
    ("kind", "figure", "original", "value", "limit", "told"),
    [
        ("classes", "top1", 80.0, 78.0, 1, "loses 2.00 points of top-1, more than the 1 allowed"),
        ("multilabel", "map", 80.0, 78.5, 1, "loses 1.50 points of mAP, more than the 1 allowed"),
        ("dense", "miou", 80.0, 78.5, 1, "loses 1.50 points of mIoU, more than the 1 allowed"),
        ("regression", "mae", 2.0, 2.6, 0.5, "takes MAE from 2.0000 to 2.6000, which is 0.6000 worse, more than"),
    ],
)
def test_max_drop_is_in_the_unit_of_the_labelled_figure(
    answering: Answering, kind: str, figure: str, original: float, value: float, limit: float, told: str
) -> None:
    report = answering(kind, {figure: original}, **{figure: value}).model_copy(update={"max_drop": float(limit)})
    (text,) = failures(report, report.max_drop)
    assert told in text
    assert failures(report, 5.0) == []
    better = answering(kind, {figure: value}, **{figure: original})
    assert failures(better, 0.0) == []


BEFORE = {"ap": 82.0, "ap50": 98.0, "mask_ap": 69.0, "mask_ap50": 97.0}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"ap": (80.5, None, (0.75, 2.25))}, ["loses 1.50 points of box AP (95 %: 0.75 to 2.25), more than the 1"]),
        ({"mask_ap": 67.5}, ["loses 1.50 points of mask AP, more than the 1 allowed"]),
        ({"mask_ap": None}, ["mask AP is not finite, so --max-drop 1 is not kept"]),
        ({"ap": 79.0, "mask_ap": 66.0}, ["loses 3.00 points of box AP", "loses 3.00 points of mask AP"]),
        ({"ap50": 90.0, "mask_ap50": 90.0}, []),
    ],
)
def test_of_objects_with_masks_boxes_and_masks_are_held_to_max_drop(
    answering: Answering, change: dict[str, Any], missed: list[str]
) -> None:
    report = answering("detection", BEFORE, **{**BEFORE, **change}).model_copy(update={"max_drop": 1.0})
    found = failures(report, 1.0)
    assert len(found) == len(missed)
    assert all(wanted in text for wanted, text in zip(missed, found, strict=True))
    promised = "Holds: within the 1 point of box AP and of mask AP allowed"
    assert status(report)[0] == ("Does not hold" if missed else promised)


def test_both_are_told(answering: Answering) -> None:
    shown = {"ap": (82.0, (81.0, 83.0)), "mask_ap": (68.6, (67.0, 70.0), (0.1, 0.7))}
    report = answering("detection", BEFORE, **{**BEFORE, **shown})
    assert "82.00 % box AP (0.00 points), 68.60 % mask AP (-0.40 points)" in verdict(report)
    assert [card.label for card in cards(report)] == ["Box AP", "Mask AP"]
    assert status(report)[0] == "Loses more than chance explains on 50,000 images"


def test_where_no_report_says_that_masks_are_judged_they_are_not(answering: Answering) -> None:
    """As in reports before masks were."""
    report = answering("detection", BEFORE, **{**BEFORE, "mask_ap": 60.0})
    figures = [meaning.model_copy(update={"drop": None}) for meaning in report.outputs[0].figures]
    old = report.model_copy(update={"outputs": [report.outputs[0].model_copy(update={"figures": figures})]})
    assert failures(old, 1.0) == []
    assert len(failures(report, 1.0)) == 1


def test_max_drop_is_about_the_users_own_figure_where_there_is_one(answering: Answering) -> None:
    report = answering("classes", {"top1": 80.0}, top1=10.0)
    rows = [
        row.model_copy(update={"own": [Figure(name="f1", value=v)]})
        for row, v in zip(report.rows, (0.9, 0.8), strict=True)
    ]
    report = report.model_copy(update={"rows": rows, "evaluate": "mine:f1"})
    (text,) = failures(report, 0.05)
    assert text == (
        "ONNX Runtime CPU takes f1 from 0.9000 to 0.8000, which is 0.1000 worse, more than the 0.05 allowed"
    )
    assert failures(report, 0.1) == []
    assert "f1 0.8000 (-0.1000)" in verdict(report)


def test_an_own_figure_that_is_not_finite_keeps_no_promise(answering: Answering) -> None:
    report = answering("classes", {"top1": 80.0}, top1=80.0)
    rows = [
        row.model_copy(update={"own": [Figure(name="f1", value=v)]})
        for row, v in zip(report.rows, (0.9, None), strict=True)
    ]
    (text,) = failures(report.model_copy(update={"rows": rows, "evaluate": "mine:f1"}), 5.0)
    assert "f1 is not finite" in text


def test_a_report_from_before_does_not_quote_the_neighbour(full_report: r.Report) -> None:
    """0.1.0 compared what is shipped with the unoptimised graph: 100 %, however far both are from the original."""
    neighbour = r.Comparison(to="onnx-reference", agreement=100.0, largest_difference=0.0)
    row = full_report.rows[3].model_copy(update={"accuracy": None, "comparison": neighbour})
    first = full_report.rows[0].model_copy(update={"accuracy": None})
    old = full_report.model_copy(update={"rows": [first, row], "audits": [], "max_drop": None})
    assert "not compared with the original" in verdict(old)
    assert "100.00" not in verdict(old)
    assert [card.label for card in cards(old)] == ["Latency", "File"]


def test_several_outputs_are_told_and_judged_by_name(answering: Answering) -> None:
    report = answering("embedding", cosine=0.999)
    second = report.outputs[0].model_copy(update={"name": "boxes"})
    row = report.rows[1]
    assert row.original is not None
    figures = [*row.original.figures, Figure(output="boxes", name="cosine", value=0.3)]
    row = row.model_copy(update={"original": row.original.model_copy(update={"figures": figures})})
    report = report.model_copy(update={"outputs": [*report.outputs, second], "rows": [report.rows[0], row]})
    assert "ruined, output: cosine 0.9990 with PyTorch FP32, boxes: cosine 0.3000 with" in verdict(report)
    (text,) = failures(report, None)
    assert "boxes: cosine 0.3000" in text
    assert [card.tone for card in cards(report)[:2]] == ["plain", "bad"]


@pytest.mark.parametrize(
    ("top1", "allowed", "count"), [(97.5, 0.5, 0), (97.4, 0.5, 1), (90.0, None, 0), (98.5, 0.0, 0)]
)
def test_the_gate_judges_only_what_ran_and_would_be_shipped(
    small_report: Answering, top1: float, allowed: float | None, count: int
) -> None:
    assert len(failures(small_report(top1), allowed)) == count


def test_a_not_run_row_without_labels_is_not_a_failure(small_report: Answering) -> None:
    assert failures(small_report(labelled=False), 0.0) == []


def test_a_compiler_that_refuses_is_a_failure(small_report: Answering) -> None:
    status = r.TargetStatus(name="tensorrt", not_built="cannot compile", failed=True)
    assert failures(small_report().model_copy(update={"targets": [status]}), None) == ["tensorrt: cannot compile"]


def test_what_was_built_beyond_a_budget_breaks_the_build(full_report: r.Report) -> None:
    before = failures(full_report, None)
    point = {"megabytes": 3.0, "speed": 2.0, "loss": 0.25}
    common = {"formats": {"a": "w4a8"}, "losses": {}, "chosen": point, "front": [point]}

    def missed(**more: Any) -> list[str]:
        mix = Mix.model_validate({**common, **more})
        return failures(full_report.model_copy(update={"mix": mix}), None)[: -len(before) or None]

    slow = {"target": "onnxruntime-cpu", "speed": 1.5, "interval": (1.4, 1.6)}
    assert missed() == missed(size_budget=3, built={"megabytes": 3.0}) == []
    assert missed(speed_budget=1.6, built={"megabytes": 3.1, "times": [slow]}) == [], "the interval reaches it"
    assert missed(size_budget=3, built={"megabytes": 3.01, "times": [slow]}) == [
        "model.onnx takes 3.01 MB, more than the 3 of --size-budget"
    ]
    assert missed(speed_budget=1.8, built={"megabytes": 3.0, "times": [slow]}) == [
        "onnxruntime-cpu: products are 1.5 times as fast as in floats (1.4 to 1.6), less than the 1.8 of --speed-budget"
    ]
