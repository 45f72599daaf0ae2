"""Tokens as a grid: what stands in front of the patches is found by the image's proportions."""

from __future__ import annotations

import numpy as np
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks.patches import on_grid


@pytest.mark.parametrize(
    ("tokens", "size", "rows", "columns", "first"),
    [
        (197, (224, 224), 14, 14, 1),  # a class token
        (261, (224, 224), 16, 16, 5),  # and four registers
        (49, (98, 98), 7, 7, 0),
        (1 + 6 * 8, (84, 112), 6, 8, 1),
        (6 * 8, (112, 84), 8, 6, 0),
    ],
)
def test_tokens_in_front_are_left_out(tokens: int, size: tuple[int, int], rows: int, columns: int, first: int) -> None:
    vectors = np.arange(tokens, dtype=np.float32)[None, :, None] * np.ones((2, 1, 3), np.float32)
    found = on_grid(vectors, size)
    assert found.shape == (2, rows, columns, 3)
    assert found[0, 0, 0, 0] == first
    assert found[1, -1, -1, 0] == tokens - 1


def test_maps_are_grids_already() -> None:
    maps = np.zeros((2, 3, 4, 5))
    assert on_grid(maps, (9, 9)) is maps


def test_tokens_of_no_grid_are_refused() -> None:
    with pytest.raises(UserError, match="40 tokens: expected a patch for each place of 1000×10 pixels"):
        on_grid(np.zeros((1, 40, 3)), (1000, 10))
