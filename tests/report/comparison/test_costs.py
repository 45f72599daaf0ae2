"""Time and size of two builds: paired speed-ups, and bytes as they are."""

from __future__ import annotations

from typing import Any

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.comparison.costs import latency_differences, size_differences
from fimaq_deploy.report.comparison.records import Difference


def row(speedup: float | None = 2.0, *sizes: int, spread: float = 0.02, **changes: Any) -> r.Row:
    interval = speedup and (speedup * (1 - spread), speedup * (1 + spread))
    fields = {"p50_ms": 5.0, "p90_ms": 6.0, "p99_ms": 7.0, "images_per_second": 200.0, "ratio_to": "onnx-fp32"}
    measured = {**fields, "speedup": speedup, "speedup_interval": interval, **changes}
    latency = [r.Latency.model_validate({"batch_size": size, **measured}) for size in sizes or (1,)]
    return r.Row(id="cpu", title="CPU", latency=latency)


def slowdown(new: r.Row, old: r.Row, limit: float | None = 20, same_hardware: bool = True) -> Difference:
    (found,) = latency_differences(new, old, limit, same_hardware)
    return found


def test_a_loss_of_time_is_the_ratio_of_the_speed_ups() -> None:
    """Half the speed-up takes twice the time: + 100 %, whatever the milliseconds were."""
    found = slowdown(row(1.0, p50_ms=3.0), row(2.0))
    assert found.loss == pytest.approx(100)
    assert (found.new, found.baseline, found.new_ms, found.baseline_ms) == (1.0, 2.0, 3.0, 5.0)
    assert (found.verdict, found.limit, found.measure) == ("regression", 20, "time, batch 1")


def test_without_noise_the_interval_is_the_loss() -> None:
    found = slowdown(row(1.6, spread=0.0), row(2.0, spread=0.0))
    assert found.loss == pytest.approx(25)
    assert found.interval == pytest.approx((25, 25))


def test_the_interval_is_that_of_both_and_holds_the_loss() -> None:
    one, both = slowdown(row(1.6), row(2.0, spread=0.0)), slowdown(row(1.6), row(2.0))
    assert one.interval and both.interval
    assert both.interval[0] < one.interval[0] < 25 < one.interval[1] < both.interval[1]
    assert (1 + one.interval[0] / 100, 1 + one.interval[1] / 100) == pytest.approx((1.25 / 1.02, 1.25 / 0.98))


@pytest.mark.parametrize(
    ("speedup", "spread", "limit", "verdict"),
    [
        (1.9, 0.02, 20, "allowed"),
        (1.0, 0.9, 20, "doubtful"),
        (1.99, 0.02, 20, "same"),
        (3.0, 0.02, 20, "better"),
        (1.0, 0.02, None, "worse"),
    ],
)
def test_verdicts_on_time(speedup: float, spread: float, limit: float | None, verdict: str) -> None:
    assert slowdown(row(speedup, spread=spread), row(2.0, spread=spread), limit).verdict == verdict


def test_what_has_no_interval_or_ran_elsewhere_is_shown_and_not_judged() -> None:
    for found in (slowdown(row(1.0), row(), same_hardware=False), slowdown(row(1.0, speedup_interval=None), row())):
        assert (found.verdict, found.limit) == ("not judged", None)
        assert found.loss == pytest.approx(100)


def test_only_batch_sizes_of_both_beside_the_same_row_are_compared() -> None:
    found = latency_differences(row(2.0, 1, 8), row(2.0, 8, 32), None, True)
    assert [one.batch_size for one in found] == [8]
    assert list(latency_differences(row(), row(ratio_to="tensorrt-fp16"), None, True)) == []
    assert list(latency_differences(row(), row(None), None, True)) == []


def sized(size_bytes: int | None) -> r.Row:
    return r.Row(id="cpu", title="CPU", size_bytes=size_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "limit", "loss", "verdict"),
    [
        (1060, 5, 6.0, "regression"),
        (1060, 6, 6.0, "allowed"),
        (1060, None, 6.0, "worse"),
        (1000, 0, 0.0, "same"),
        (990, 0, -1.0, "better"),
    ],
)
def test_a_size_is_exact(size_bytes: int, limit: float | None, loss: float, verdict: str) -> None:
    (found,) = size_differences(sized(size_bytes), sized(1000), limit)
    assert (found.loss, found.verdict, found.new, found.baseline) == (loss, verdict, size_bytes, 1000)
    assert found.interval is None


def test_a_file_that_only_one_has_is_not_compared() -> None:
    assert list(size_differences(sized(None), sized(1), 0)) == list(size_differences(sized(1), sized(None), 0)) == []
