from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.report.timeline.changes import LEVEL, change_points


def noise(*levels: float, each: int = 12, seed: int = 0) -> list[float]:
    random = np.random.default_rng(seed)
    return [float(level + random.normal(0, 0.1)) for level in levels for _ in range(each)]


def test_levels_are_found_where_they_begin() -> None:
    assert change_points(noise(1.0, 2.0)) == (12,)
    assert change_points(noise(1.0, 2.0, 1.0)) == (12, 24)
    assert change_points([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 0.5, 0.51, 0.49, 0.5]) == (6,)


def test_noise_has_hardly_more_changes_than_the_level_allows() -> None:
    found = sum(bool(change_points(noise(1.0, each=30, seed=seed))) for seed in range(60))
    assert found <= 60 * 2 * LEVEL * 2.5, "a step and a stretch are looked for"


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 40, [1.0, 1.0, 1.0, 9.0]])
def test_too_few_or_equal_values_have_none(values: list[float]) -> None:
    assert change_points(values) == ()


def test_exact_values_change_where_they_differ() -> None:
    assert change_points([5, 5, 6, 6, 5], exact=True) == (2, 4)


def test_the_same_series_has_the_same_changes() -> None:
    assert change_points(noise(1.0, 1.05)) == change_points(noise(1.0, 1.05))
