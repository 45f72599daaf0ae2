"""What chains of windowed models are built of: maps of tokens, blocks that attend within windows, merging of patches.

Maps are (batch, rows, columns, channels). The size of the map is known, so windows, shifts and masks are constants.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.parts import Attention, Block, GatedMlp, Mlp
from fimaq_deploy.models.families.roles import NormReaders

Grid = tuple[int, int]

# What a mask adds to the scores of hidden tokens: timm_swin says why not -100.
HIDDEN = -1e4


class TokenMap(nn.Module):
    """Images (N, C, H, W) to a map of tokens. positions: (rows, columns, channels), added behind the norm."""

    def __init__(self, proj: nn.Conv2d, norm: nn.Module | None = None, positions: Tensor | None = None) -> None:
        super().__init__()
        self.proj, self.norm = proj, norm or nn.Identity()
        self.position = None if positions is None else nn.Parameter(positions.detach().clone(), False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return x if self.position is None else x + self.position


def shift_mask(grid: Grid, window: Grid, shift: Grid) -> Tensor | None:
    """What hides tokens of a shifted map that were no neighbours, (windows, 1, tokens, tokens); None without a shift.

    grid: rows and columns, padded to whole windows.
    """
    if not any(shift):
        return None
    sides = []
    for size, width, by in zip(grid, window, shift, strict=True):
        places = torch.arange(size)
        sides.append((places >= size - width).long() + (places >= size - by).long() * (by > 0))
    regions = (3 * sides[0][:, None] + sides[1][None, :])[None, :, :, None]
    inside = partitioned(regions, window).flatten(1)
    return ((inside[:, :, None] != inside[:, None, :]) * HIDDEN).unsqueeze(1)


def partitioned(x: Tensor, window: Grid) -> Tensor:
    """A map as windows (batch * windows, tokens, channels)."""
    _, rows, columns, channels = x.shape
    height, width = window
    x = x.view(-1, rows // height, height, columns // width, width, channels)
    return x.transpose(2, 3).reshape(-1, height * width, channels)


def joined_windows(x: Tensor, window: Grid, grid: Grid) -> Tensor:
    """The inverse of `partitioned`. grid: rows and columns of the map."""
    height, width = window
    x = x.view(-1, grid[0] // height, grid[1] // width, height, width, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, *grid, x.shape[-1])


class WindowBlock(Block):
    """x + attn(norm1(x)), then x + mlp(norm2(x)), of maps, with attention inside windows.

    grid: rows and columns of the map. window, shift: of attention, down and right. A map that is not made of whole
    windows is padded with zeros, before it is shifted or (`pad_last`) behind that.
    """

    mask: Tensor | None

    def __init__(
        self,
        norm1: nn.Module,
        attn: Attention,
        norm2: nn.Module,
        mlp: Mlp | GatedMlp,
        *,
        grid: Grid,
        window: Grid,
        shift: Grid = (0, 0),
        pad_last: bool = False,
        scales: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        super().__init__(norm1, attn, norm2, mlp, scales=scales)
        self.grid, self.window, self.shift, self.pad_last = grid, window, shift, pad_last
        self.below, self.beside = (-size % width for size, width in zip(grid, window, strict=True))
        whole = (grid[0] + self.below, grid[1] + self.beside)
        mask = shift_mask(whole, window, shift)
        place = attn.proj.weight
        self.register_buffer("mask", None if mask is None else mask.to(place), persistent=False)

    def readers(self, name: str) -> Iterator[NormReaders]:
        padded = bool(self.below or self.beside)
        yield NormReaders(f"{name}.norm1", self, "norm1", self.attn.inputs, can_shift=not padded)
        yield NormReaders(f"{name}.norm2", self, "norm2", self.mlp.inputs)

    def attended(self, x: Tensor) -> Tensor:
        """Attention of a map."""
        height, width = self.grid
        x = self._padded(self._rolled(x, -1)) if self.pad_last else self._rolled(self._padded(x), -1)
        y = self.attn(partitioned(x, self.window), self.mask)
        y = joined_windows(y, self.window, (height + self.below, width + self.beside))
        return self._rolled(self._cut(y), 1) if self.pad_last else self._cut(self._rolled(y, 1))

    def _padded(self, x: Tensor) -> Tensor:
        needed = self.below or self.beside
        return nn.functional.pad(x, (0, 0, 0, self.beside, 0, self.below)) if needed else x

    def _cut(self, x: Tensor) -> Tensor:
        return x[:, : self.grid[0], : self.grid[1]] if self.below or self.beside else x

    def _rolled(self, x: Tensor, sign: int) -> Tensor:
        down, right = self.shift
        return torch.roll(x, (sign * down, sign * right), (1, 2)) if any(self.shift) else x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attended(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PostNormWindowBlock(WindowBlock):
    """x + norm1(attn(x)), then x + norm2(mlp(x))."""

    def readers(self, name: str) -> Iterator[NormReaders]:
        return iter(())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.attended(x))
        return x + self.norm2(self.mlp(x))


class Merging(nn.Module):
    """Four neighbours of a map as one token: norm, then one product; or the other way round.

    grid: rows and columns of the map; odd ones are padded.
    """

    def __init__(self, norm: nn.Module, reduction: nn.Linear, grid: Grid, *, norm_last: bool = False) -> None:
        super().__init__()
        self.norm, self.reduction, self.norm_last = norm, reduction, norm_last
        self.below, self.beside = grid[0] % 2, grid[1] % 2

    def readers(self, name: str) -> Iterator[NormReaders]:
        if not self.norm_last:
            yield NormReaders(f"{name}.norm", self, "norm", (self.reduction,))

    def forward(self, x: Tensor) -> Tensor:
        if self.below or self.beside:
            x = nn.functional.pad(x, (0, 0, 0, self.beside, 0, self.below))
        _, rows, columns, channels = x.shape
        # Columns are counted before rows, as all the libraries do.
        x = x.view(-1, rows // 2, 2, columns // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.norm(self.reduction(x)) if self.norm_last else self.reduction(self.norm(x))


def halved(grid: Grid) -> Grid:
    """The map behind a merging."""
    return (grid[0] + 1) // 2, (grid[1] + 1) // 2


def patch_grid(proj: nn.Conv2d, shape: tuple[int, int, int]) -> Grid:
    """Rows and columns of the map that images (C, H, W) become.

    Raises:
        UserError: they are not made of whole patches, or have other channels.
    """
    channels, height, width = shape
    down, right = proj.kernel_size
    if channels != proj.in_channels or height % down or width % right or not height or not width:
        raise UserError(
            f"the model takes no images of {shape}: expected {proj.in_channels} channels and whole patches of "
            f"{down}×{right}"
        )
    return height // down, width // right
