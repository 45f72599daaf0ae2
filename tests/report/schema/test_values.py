from __future__ import annotations

import pytest
from pydantic import ValidationError

from fimaq_deploy import report as r


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_difference_that_is_not_finite_is_null_and_reads_back(value: float) -> None:
    found = r.Comparison(to="x", agreement=100.0, largest_difference=value)
    assert found.largest_difference is None
    assert r.Comparison.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("change", [{"p50_ms": 0.0}, {"p50_ms": 1e13}, {"p50_ms": float("inf")}, {"batch_size": 0}])
def test_a_latency_that_gates_would_pass_for_any_speed_is_refused(change: dict[str, float]) -> None:
    fields = {"batch_size": 1, "p50_ms": 2.0, "p90_ms": 2.5, "p99_ms": 3.0, "images_per_second": 500.0}
    assert r.Latency.model_validate(fields).p50_ms == 2
    with pytest.raises(ValidationError):
        r.Latency.model_validate({**fields, **change})


def test_a_file_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="size_bytes"):
        r.Row(id="x", title="", size_bytes=-1)


def test_a_record_stays_as_it_is() -> None:
    step = r.Step(name="load", seconds=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        step.seconds = 2.0
