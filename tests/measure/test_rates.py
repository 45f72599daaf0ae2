"""Rates of this machine: what runs is what is counted, and a best time is no longer than the time that went by."""

from __future__ import annotations

import time
from math import isfinite
from types import SimpleNamespace

import numpy as np
import pytest

from fimaq_deploy.measure import rates
from fimaq_deploy.measure.rates import _best_seconds, _product, measure_copies, measure_operations
from fimaq_deploy.measure.roofline import FLOAT32, INT8

OPERATIONS = 2 * 512**3


def test_both_types_are_measured_and_the_best_run_fits_three_times_into_what_went_by() -> None:
    started = time.perf_counter()
    found = measure_operations(threads=1)
    seconds = time.perf_counter() - started
    assert set(found) == {FLOAT32, INT8}
    assert all(isfinite(rate) and 0 < OPERATIONS / rate < seconds / 3 for rate in found.values())


@pytest.mark.parametrize(("operator", "kind"), [("MatMul", np.float32), ("MatMulInteger", np.int32)])
def test_what_runs_is_a_whole_square_product(operator: str, kind: type) -> None:
    (first,), (second,) = (_product(operator, 1)() for _ in range(2))
    assert first.shape == (512, 512)
    assert first.dtype == kind
    assert np.array_equal(first, second), "the same numbers every time"
    assert np.unique(first).size > 1000


def test_both_products_are_of_the_same_numbers() -> None:
    """Integers below 100 are exact in either type, also added up."""
    floats, integers = (_product(operator, 1)()[0] for operator in ("MatMul", "MatMulInteger"))
    assert np.array_equal(floats, integers)


@pytest.mark.parametrize("working_set_bytes", [0, 5000, 3 * 2**20, 2**40])
def test_a_copy_reads_and_writes_a_piece_of_any_working_set(working_set_bytes: int) -> None:
    started = time.perf_counter()
    rate = measure_copies(working_set_bytes)
    seconds = time.perf_counter() - started
    piece = min(max(4096, working_set_bytes // 2), 2**20)
    assert isfinite(rate)
    assert 0 < 2 * piece / rate < seconds / 3


@pytest.mark.parametrize(
    ("first_s", "each_s", "runs", "best_s"),
    [(9.0, [0.3, 0.2, 0.4], 4, 0.2), (0.001, [0.04, 0.03, 0.02, 0.04], 5, 0.02)],
    ids=["slow", "quick"],
)
def test_the_shortest_run_counts_of_three_at_least_after_a_first(
    monkeypatch: pytest.MonkeyPatch, first_s: float, each_s: list[float], runs: int, best_s: float
) -> None:
    """On a clock that only the work moves."""
    now, left = 0.0, [first_s, *each_s, 1.0, 1.0]

    def work() -> None:
        nonlocal now
        now += left.pop(0)

    monkeypatch.setattr(rates, "time", SimpleNamespace(perf_counter=lambda: now))
    assert _best_seconds(work) == pytest.approx(best_s)
    assert len(each_s) + 3 - len(left) == runs
