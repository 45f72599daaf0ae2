from __future__ import annotations

import pytest

from fimaq_deploy.report import words


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (93.8333, "%", "93.83 %"),
        (0.99987, "", "0.9999"),
        (0.0, "", "0.0000"),
        (0.00012345, "", "0.0001234"),
        (1234.56, "", "1235"),
        (None, "", "not finite"),
        (None, "%", "not finite"),
    ],
)
def test_a_figure_has_as_many_digits_as_mean_something(value: float | None, unit: str, said: str) -> None:
    assert words.value_text(value, unit) == said


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (None, ""),
        (0, "0 kB"),
        (1234, "1 kB"),
        (597_123, "597 kB"),
        (12_340_000, "12.3 MB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
    ],
)
def test_a_size_is_in_kilobytes_below_a_megabyte(size: int | None, said: str) -> None:
    assert words.size_text(size) == said


@pytest.mark.parametrize(
    ("drop", "unit", "said"),
    [(0.5, "%", "-0.50"), (-0.5, "%", "+0.50"), (0.004, "%", "0.00"), (-0.004, "%", "0.00"), (0.0, "", "0")],
)
def test_a_loss_is_a_change_downwards_and_no_change_has_no_sign(drop: float, unit: str, said: str) -> None:
    assert words.change_text(drop, unit) == said


def test_one_point_and_several_points() -> None:
    assert [words.points_text(points) for points in (1, 0.5, 2)] == ["1 point", "0.5 points", "2 points"]
    assert words.times_text(1.349) == "1.35×"
    assert (words.limit_text(0.5, "%"), words.limit_text(0.99)) == ("0.5 %", "0.99")
