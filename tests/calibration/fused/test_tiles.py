from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture
def tiles() -> Any:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused import tiles

    return tiles


@pytest.mark.parametrize(
    ("shape", "tall", "wide", "grid"),
    [
        ((), 2048, 1, (1, 1)),
        ((7,), 256, 8, (1, 1)),
        ((3, 100), 16, 128, (1, 1)),
        ((32, 197, 384), 4, 512, (1576, 1)),
        ((2, 4097), 1, 2048, (2, 3)),
        ((0, 5), 256, 8, (0, 1)),
    ],
)
def test_tiles_cover_a_tensor(tiles: Any, shape: tuple[int, ...], tall: int, wide: int, grid: tuple[int, int]) -> None:
    found = tiles.Tiles.of(shape)
    assert (found.tall, found.wide, found.grid) == (tall, wide, grid)
    assert found.rows * found.columns == torch.Size(shape).numel()


def test_a_row_that_one_program_has_to_hold_is_held_with_more_warps(tiles: Any) -> None:
    found = tiles.Tiles.of((10, 5000), longest=8192)
    assert found.grid == (10, 1) and found.form == {"tall": 1, "wide": 8192, "num_warps": 16}


@pytest.mark.parametrize("shape", [(32, 12, 197, 197), (5, 3), (1, 10**7), (10**6, 1)])
def test_few_programs_go_through_all_tiles(tiles: Any, shape: tuple[int, ...]) -> None:
    found = tiles.Tiles.of(shape)
    (down, across), rounds = found.shared
    assert down * rounds >= found.grid[0] and across == found.grid[1]
    assert down <= found.grid[0] and down * across <= max(tiles.PROGRAMS, across)


def test_what_a_product_reads(tiles: Any) -> None:
    x = torch.zeros(2)
    assert tiles.read_by_products(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert tiles.read_by_products(x) == torch.bfloat16
