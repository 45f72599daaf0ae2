"""The headline, the status and the cards of a build."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.verdict import cards, clear_speedup, concerns, shipped, status, verdict

Make = Callable[..., r.Report]


def test_the_verdict_names_accuracy_speed_and_size(small_report: Make) -> None:
    assert verdict(small_report()) == (
        "swin_digits with recipe w8a8, ONNX Runtime: 97.50 % top-1 (-0.50 points), 1.25 times the speed of FP32, "
        "1.0 MB instead of 4.0 MB."
    )


def test_without_labels_the_verdict_speaks_of_agreement(small_report: Make) -> None:
    text = verdict(small_report(labelled=False))
    assert "top-1" not in text
    assert "99.50 % of predictions" in text


def test_the_same_speed_is_not_a_factor_of_one(small_report: Make) -> None:
    report = small_report()
    same = report.rows[2].latency[0].model_copy(update={"speedup": 1.001, "speedup_interval": (1.0005, 1.0015)})
    rows = [*report.rows[:2], report.rows[2].model_copy(update={"latency": [same]}), report.rows[3]]
    report = report.model_copy(update={"rows": rows})
    assert "as fast as FP32" in verdict(report) and "1.00 times" not in verdict(report)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"audits": []}, "Holds: within the 1 point of top-1 allowed"),
        ({}, "Look closer"),
        ({"max_drop": 0.5}, "Does not hold"),
        ({"audits": [], "max_drop": None}, "Loses more than chance explains on 50,000 images"),
    ],
)
def test_the_verdict_is_judged(full_report: r.Report, change: dict[str, object], told: str) -> None:
    assert status(full_report.model_copy(update=change))[0] == told


def test_what_is_shipped_is_the_first_row_that_is_deployed_and_ran(small_report: Make) -> None:
    report = small_report()
    assert shipped(report) == report.rows[2]
    none = report.model_copy(update={"rows": [*report.rows[:2], report.rows[3]]})
    assert shipped(none) is None
    assert verdict(none) == "swin_digits with recipe w8a8: nothing that can be deployed was run here."
    assert (status(none), cards(none)) == (("Not run here", "plain"), [])


def test_broken_promises_and_outputs_that_are_not_finite_are_concerns(full_report: r.Report) -> None:
    row = full_report.rows[3].model_copy(update={"not_finite": 7})
    report = full_report.model_copy(update={"rows": [*full_report.rows[:3], row]})
    assert concerns(report) == [
        "tensorrt-rtx: a GEMM of blocks.3 runs in FP16",
        "ONNX Runtime CPU: 7 images gave outputs that are not finite",
    ]


def test_the_cards_are_accuracy_closeness_latency_and_size(full_report: r.Report) -> None:
    found = {card.label: card for card in cards(full_report)}
    assert list(found) == ["Top-1", "Agree with the original", "Latency", "File"]
    assert [card.value for card in found.values()] == ["79.31 %", "97.30 %", "11.80 ms", "22.8 MB"]
    assert found["Top-1"].note == "-0.52 points against PyTorch FP32; 95 % interval 79.0 to 79.7"
    assert found["Latency"].note == "median for one image; 1.75× the speed of ONNX Runtime FP32"
    assert found["File"].note == "3.9× smaller than 88.2 MB in FP32"
    assert [card.tone for card in found.values()] == ["good", "plain", "good", "good"]


@pytest.mark.parametrize(
    ("speedup", "interval", "clear"),
    [
        (1.75, (1.7, 1.8), True),
        (0.5, (0.4, 0.6), True),
        (1.1, (0.9, 1.3), False),
        (1.001, (1.0005, 1.0015), False),
        (1.2, None, True),
        (None, None, False),
    ],
)
def test_a_speed_up_is_clear_beyond_its_interval_and_where_it_can_be_seen(
    full_report: r.Report, speedup: float | None, interval: tuple[float, float] | None, clear: bool
) -> None:
    change = {"speedup": speedup, "speedup_interval": interval}
    assert clear_speedup(full_report.rows[3].latency[0].model_copy(update=change)) == clear


def test_a_slower_and_larger_file_is_not_praised(small_report: Make) -> None:
    report = small_report()
    slow = report.rows[2].latency[0].model_copy(update={"speedup": 0.5, "speedup_interval": (0.4, 0.6)})
    row = report.rows[2].model_copy(update={"latency": [slow], "size_bytes": 5_000_000})
    *_, latency, file = cards(report.model_copy(update={"rows": [*report.rows[:2], row]}))
    assert (latency.tone, file.tone, file.note) == ("bad", "plain", "not smaller than in FP32")


def test_where_integers_gain_nothing_the_verdict_says_what_to_ship(small_report: Make) -> None:
    report = small_report()
    cuda = r.TargetStatus(name="onnxruntime-cuda", ships="model.fp16.onnx", remark="it multiplies floats")
    told = verdict(report.model_copy(update={"targets": [cuda]}))
    assert told.endswith("For onnxruntime-cuda, whose kernels multiply no integers, ship model.fp16.onnx.")
    latency = report.rows[2].latency[0]
    floats, integers = (
        r.Row(id=name, title=name, deployed=deployed, latency=[latency.model_copy(update={"p50_ms": milliseconds})])
        for name, deployed, milliseconds in (("onnxruntime-cuda-fp16", True, 2.8), ("onnxruntime-cuda", False, 3.88))
    )
    measured = report.model_copy(update={"targets": [cuda], "rows": [*report.rows, floats, integers]})
    assert verdict(measured).endswith("ship model.fp16.onnx: 2.80 ms for one image, and the quantized file 3.88.")
