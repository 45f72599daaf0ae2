from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(1, (1024, 1)), (16, (64, 16)), (100, (8, 128)), (384, (2, 512)), (1536, (1, 2048)), (4097, (1, 2048))],
)
def test_a_tile_fills_a_program_and_holds_a_whole_row_up_to_a_limit(columns: int, expected: tuple[int, int]) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
    from fimaq_deploy.calibration.fused.tiles import tile

    assert tile(columns) == expected
