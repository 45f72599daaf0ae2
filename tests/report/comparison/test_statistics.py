from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from fimaq_deploy.measure.accuracy import wilson_interval
from fimaq_deploy.measure.latency import median_interval
from fimaq_deploy.report.comparison.statistics import Pairs, correlation, difference_interval, mcnemar, ratio_interval


def enumerated(first: int, second: int) -> Fraction:
    """The McNemar probability by listing every way in which the parted images could have fallen."""
    parted = first + second
    uneven = [ways for ways in product((0, 1), repeat=parted) if abs(2 * sum(ways) - parted) >= abs(first - second)]
    return Fraction(len(uneven), 2**parted)


@pytest.mark.parametrize(("first", "second"), list(product(range(6), range(6))))
def test_mcnemar_is_the_listing_of_all_outcomes(first: int, second: int) -> None:
    assert mcnemar(Pairs(7, first, second, 3)) == pytest.approx(float(enumerated(first, second)))


@pytest.mark.parametrize(("first", "second"), [(1, 7), (30, 12), (0, 500), (4000, 4100)])
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue
    assert mcnemar(Pairs(0, first, second, 0)) == pytest.approx(expected, rel=1e-9)


def shares(pairs: Pairs) -> tuple[float, float]:
    return 100 * (pairs.both + pairs.first) / sum(pairs), 100 * (pairs.both + pairs.second) / sum(pairs)


def paired(pairs: Pairs) -> tuple[float, float]:
    """The interval of the first share less the second, in percent."""
    count = sum(pairs)
    first, second = wilson_interval(pairs.both + pairs.first, count), wilson_interval(pairs.both + pairs.second, count)
    return difference_interval(shares(pairs)[0], first, shares(pairs)[1], second, correlation(pairs))


def test_a_published_paired_interval() -> None:
    """Bentur et al. 2009 as worked out by Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 14 (2014)."""
    assert paired(Pairs(1, 1, 7, 12)) == pytest.approx((-50.7, -2.6), abs=0.05)


def test_a_published_unpaired_interval() -> None:
    """56 of 70 against 48 of 80: Newcombe's example (a), method 10."""
    found = difference_interval(80, wilson_interval(56, 70), 60, wilson_interval(48, 80))
    assert found == pytest.approx((5.24, 33.39), abs=0.005)


def test_phi_is_the_correlation_of_the_answers() -> None:
    """Against numpy on the answers themselves, where the correction plays no part (phi below zero)."""
    pairs = Pairs(2, 9, 7, 3)
    answers = [(1, 1)] * pairs.both + [(1, 0)] * pairs.first + [(0, 1)] * pairs.second + [(0, 0)] * pairs.neither
    assert correlation(pairs) == pytest.approx(np.corrcoef(np.array(answers).T)[0, 1])
    assert correlation(Pairs(10, 0, 0, 0)) == correlation(Pairs(5, 5, 0, 0)) == 0
    assert 0 < correlation(Pairs(90, 0, 0, 10)) < 1


@pytest.mark.parametrize("lost", [0.0, 0.03])
def test_paired_intervals_hold_the_truth(lost: float) -> None:
    """Among 1,500 drawn tables about 95 in 100 intervals hold the true difference, and they tell more than unpaired."""
    rng, count = np.random.default_rng(0), 600
    chances = np.array([0.90 - lost, 0.02 + lost, 0.02, 0.06])
    tables = [Pairs(*map(int, row)) for row in rng.multinomial(count, chances, 1500)]
    intervals = np.array([paired(table) for table in tables])
    held = np.mean((intervals[:, 0] <= 100 * lost) & (100 * lost <= intervals[:, 1]))
    assert 0.93 < held < 0.99
    first, second = (wilson_interval(round(6 * share), count) for share in shares(tables[0]))
    alone = difference_interval(shares(tables[0])[0], first, shares(tables[0])[1], second)
    assert intervals[0, 1] - intervals[0, 0] < 0.8 * (alone[1] - alone[0])


def test_an_equal_pair_has_no_difference() -> None:
    low, high = paired(Pairs(560, 0, 0, 40))
    assert low < 0 < high
    assert high == pytest.approx(-low)
    assert high < 1, "600 equal answers leave less than a point"


def test_a_ratio_is_a_difference_of_logarithms() -> None:
    low, high = ratio_interval(2.0, (1.8, 2.2), 4.0, (3.9, 4.1))
    assert 1.8 / 4.1 < low < 0.5 < high < 2.2 / 3.9
    assert ratio_interval(3.0, (3.0, 3.0), 1.5, (1.5, 1.5)) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(
    ("count", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (8, (1, 8)), (20, (6, 15)), (50, (18, 33))]
)
def test_the_interval_of_a_median_is_the_published_pair_of_ranks(count: int, ranks: tuple[int, int]) -> None:
    """W. J. Conover, Practical Nonparametric Statistics: the sign test's interval."""
    values = np.random.default_rng(count).permutation(count) + 1.0
    assert median_interval(values.tolist()) == ranks


def test_the_interval_of_a_median_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    found = np.array([median_interval(rng.lognormal(0, 0.5, 50).tolist()) for _ in range(1000)])
    assert 0.94 < np.mean((found[:, 0] <= 1) & (found[:, 1] >= 1)) < 0.985
