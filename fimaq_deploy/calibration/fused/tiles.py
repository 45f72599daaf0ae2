"""How the programs of a kernel share a matrix, and what several kernels compute alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2048  # that a program holds at once
PROGRAMS = 1024  # at most, where each has sums of its own
_OF_A_WARP = 512
_TO_EVEN = tl.constexpr(1.5 * 2**23)


@triton.jit
def to_even(x: tl.tensor) -> tl.tensor:
    """x rounded half to even, where it is below 2**22."""
    return (x + _TO_EVEN) - _TO_EVEN


@dataclass(frozen=True)
class Tiles:
    """A matrix of so many rows and columns, of which a program takes `tall` by `wide` numbers at a time, powers of two.

    Indices are divided once a row: for every number that would take longer than its way to memory and back.
    """

    rows: int
    columns: int
    tall: int
    wide: int

    @classmethod
    def of(cls, shape: Sequence[int], longest: int = NUMBERS) -> Tiles:
        """A tensor by its last axis. longest: columns of a row that one program takes; the rest of it is another's."""
        columns = shape[-1] if len(shape) else 1
        wide = min(longest, triton.next_power_of_2(columns))
        return cls(math.prod(shape[:-1]), columns, max(1, NUMBERS // wide), wide)

    @property
    def grid(self) -> tuple[int, int]:
        """A program for each tile."""
        return triton.cdiv(self.rows, self.tall), triton.cdiv(self.columns, self.wide)

    @property
    def shared(self) -> tuple[tuple[int, int], int]:
        """So many programs that their sums are few, and how many tiles each goes through, down its rows."""
        down, across = self.grid
        rounds = triton.cdiv(down * across, PROGRAMS)
        return (triton.cdiv(down, rounds), across), rounds

    @property
    def form(self) -> dict[str, int]:
        """As a launch takes it, with warps for so many numbers."""
        return {"tall": self.tall, "wide": self.wide, "num_warps": max(4, self.tall * self.wide // _OF_A_WARP)}


def read_by_products(x: Tensor) -> torch.dtype:
    """What a product behind x computes in: x's type, or autocast's."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
