"""How much of a matrix one program of a kernel takes at a time."""

from __future__ import annotations

import triton

_NUMBERS = 1024
_LONGEST = 2048  # so that rows of most models are read at once, without a second round


def tile(columns: int) -> tuple[int, int]:
    """Rows and columns of a tile, powers of two: a whole row or a part of it, and as many rows as fill a program."""
    wide = min(triton.next_power_of_2(columns), _LONGEST)
    return max(1, _NUMBERS // wide), wide
