from __future__ import annotations

import math

import pytest

from fimaq_deploy.errors import UserError, non_negative, shown, within

HUGE = pytest.param(10**5000, id="huge")
NO_NUMBERS = [math.nan, math.inf, -math.inf, True, None, "1", [1]]


@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, 10**30])
def test_a_finite_number_of_at_least_zero_passes(value: float) -> None:
    assert non_negative("--max-drop", value) == value


@pytest.mark.parametrize("value", [-1, -5e-324, *NO_NUMBERS])
def test_anything_else_is_refused_by_its_name(value: float) -> None:
    with pytest.raises(UserError, match=r"^--max-drop .*: expected a number of at least 0$"):
        non_negative("--max-drop", value)


@pytest.mark.parametrize("value", [1, 1.5, 64])
def test_a_number_inside_its_range_passes(value: float) -> None:
    assert within("--batch", value, 1, 64) == value


@pytest.mark.parametrize("value", [0, 4097, HUGE, *NO_NUMBERS])
def test_a_number_outside_its_range_is_refused_with_the_range(value: float) -> None:
    with pytest.raises(UserError, match=r"^--batch .*: expected 1 to 4,096$") as raised:
        within("--batch", value, 1, 4096)
    assert len(str(raised.value)) < 150


def endless() -> list[object]:
    inside: list[object] = []
    for _ in range(100_000):
        inside = [inside]
    return inside


@pytest.mark.parametrize("value", [HUGE, endless(), "a" * 1000, "two\nlines", {"key": "v" * 1000}])
def test_whatever_a_user_gave_is_shown_in_one_short_line(value: object) -> None:
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


def test_a_long_path_keeps_the_name_of_its_file() -> None:
    text = shown("/of/somebody" * 20 + "/model.onnx")
    assert text.startswith("/of/somebody") and "…" in text and text.endswith("/model.onnx")


def test_a_message_is_one_line_whatever_a_name_in_it_holds() -> None:
    assert str(UserError("folder a\nb\x1b[2J.png: expected é")) == "folder a b [2J.png: expected é"
