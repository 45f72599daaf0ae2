"""Figures of numbers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.figures import noisy, value

from fimaq_deploy.measure.tasks.regression import REGRESSION, columns


def test_correlation_error_and_concordance() -> None:
    own, original = noisy(2)
    expected = np.mean([np.corrcoef(own[:, c], original[:, c])[0, 1] for c in (0, 1)])
    assert value(REGRESSION, "correlation", own, original) == pytest.approx(expected)
    assert value(REGRESSION, "mae", own, original) == pytest.approx(np.abs(own - original).mean(), rel=1e-5)
    error = np.abs(own - original).sum(0) / np.abs(original).sum(0)
    assert value(REGRESSION, "relative_error", own, original) == pytest.approx(100 * error.mean())


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 5.0), (3.0, 0.0)])
def test_concordance_sees_what_correlation_does_not(factor: float, offset: float) -> None:
    _, original = noisy(1)
    own = factor * original + offset
    assert value(REGRESSION, "correlation", own, original) == pytest.approx(1)
    assert value(REGRESSION, "concordance", own, original) < 0.8


def test_one_column_may_have_no_axis_of_its_own() -> None:
    own, original = noisy()
    assert value(REGRESSION, "mae", own, original[:, None]) == value(REGRESSION, "mae", own[:, None], original)


def test_concordance_is_as_lin_wrote_it() -> None:
    own, original = noisy(2)
    a, b = own.astype(float), original.astype(float)
    apart = a.var(0) + b.var(0) + (a.mean(0) - b.mean(0)) ** 2
    covariance = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
    assert value(REGRESSION, "concordance", own, original) == pytest.approx((2 * covariance / apart).mean())


def test_what_does_not_vary() -> None:
    flat = np.ones((5, 1), np.float32)
    rising = np.arange(5, dtype=np.float32)[:, None]
    assert np.isnan(value(REGRESSION, "correlation", rising, flat)), "the original does not vary"
    assert value(REGRESSION, "correlation", flat, rising) == 0
    assert value(REGRESSION, "concordance", flat, flat) == 1
    assert value(REGRESSION, "concordance", flat, rising) == 0


def test_single_values_near_zero_do_no_harm_and_a_column_of_zeros_is_all_error() -> None:
    original = np.float32([[0, 0], [10, 0]])
    own = np.float32([[1, 0], [10, 0]])
    assert value(REGRESSION, "relative_error", own, original) == pytest.approx(100 * (1 / 10 + 0) / 2)
    assert value(REGRESSION, "relative_error", own + np.float32([0, 1]), original) == pytest.approx(100 * (0.1 + 1) / 2)


def test_columns_are_the_last_of_two_axes() -> None:
    assert columns(np.zeros(4, np.float32)).shape == (4, 1)
    assert columns(np.zeros((4, 3), np.float32)).shape == (4, 3)
    assert columns(np.zeros((4, 3), np.float32)).dtype == np.float64


def test_labels_are_floating_point_values_of_the_outputs_shape() -> None:
    own = np.zeros((2, 3), np.float32)
    assert REGRESSION.refuse_labels(own, np.ones((2, 3))) is None
    assert "labels are int64, as of classes" in str(REGRESSION.refuse_labels(own, np.array([0, 1])))
    told = REGRESSION.refuse_labels(own, np.array([0.0, 1.0]))
    assert told == "labels have shape (2,): expected that of the output, (2, 3)"
    assert REGRESSION.refuse_labels(own[:, :1], np.array([0.0, 1.0])) is None
