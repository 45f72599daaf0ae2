from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.measure.resampling import measured, resampled, wilson_interval
from fimaq_deploy.measure.tasks.task import Figure

MEAN = Figure("mean", "mean", "{value}", "original", lambda own, reference: own)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (20, 20, 83.89, 100.0),
    ],
)
def test_wilson_interval_of_known_cases(hits: int, count: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3; the last is the third mirrored."""
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=5e-3)


def test_resamples_draw_as_many_images_and_are_the_same_every_time() -> None:
    first, again = list(resampled(50, 7)), list(resampled(50, 7))
    assert all(weights.sum() == 50 for weights in first)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(0).normal(3, 1, 2000)
    found = measured("x", MEAN, values)
    assert found.value == pytest.approx(values.mean())
    assert found.interval is not None
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert np.array_equal(found.images, values.astype(np.float32))


def test_a_share_has_the_interval_of_wilson_and_percent() -> None:
    share = Figure("share", "share", "{value}", "original", lambda own, reference: own, unit="%", share=True)
    found = measured("x", share, np.array([True] * 15 + [False] * 133))
    assert found.value == pytest.approx(100 * 15 / 148)
    assert found.interval == pytest.approx(wilson_interval(15, 148))


def test_what_is_no_mean_keeps_its_replicates() -> None:
    largest = Figure(
        "max", "max", "{value}", "original", MEAN.parts, value=lambda state, weights: float(state[weights > 0].max())
    )
    found = measured("x", largest, np.arange(100.0))
    assert found.images is None
    assert found.replicates is not None
    assert found.replicates.max() == found.value == 99


def test_one_image_and_numbers_that_are_not_finite_have_no_interval() -> None:
    assert measured("x", MEAN, np.array([1.0])).interval is None
    assert measured("x", MEAN, np.array([1.0, np.nan])).interval is None
