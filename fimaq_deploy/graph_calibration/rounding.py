"""The integers of one layer, so that its output changes least: no gradient, and no more than second moments.

With inputs x that the quantized part of the network before it computes, and x° of the original, a layer's output error

    E |W x° - V x|²  =  tr (V - U) H (V - U)ᵀ + const,    H = E x xᵀ,   U = W E x° xᵀ H⁻¹

needs two matrices, whatever the number of images. U is the float layer that makes up best for what was lost before;
V are integers times a scale. They are found column by column, each the best one given all others, over and over
(cyclic coordinate descent: Behdin et al., "QuantEase", 2023; one pass of it that never looks back is GPTQ, Frantar et
al., ICLR 2023). That V sees inputs of the quantized network and W those of the original is "asymmetric calibration"
(Li et al., GPTAQ, ICML 2025). What is ridge, and how much of it, keeps few rows from deciding much.

A layer with a bias counts deviations from the mean alone; what is left of the mean goes into the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fimaq_deploy.calibration.learning.scale_search import best_weight_scale
from fimaq_deploy.calibration.quantizers.fake_quant import short_scale
from fimaq_deploy.calibration.quantizers.grid import WeightGrid

SWEEPS = 6
RIDGE = 0.01  # of the mean of the diagonal
_LEAST_RIDGE = 1e-4  # of the mean of squares
_BLOCK = 128  # columns that are updated together


class Moments:
    """Sums over rows of what a layer reads, in the quantized network and in the original."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._own, self._cross = torch.zeros(width, width), torch.zeros(width, width)
        self._sums = torch.zeros(2, width, dtype=torch.float64)

    def add(self, quantized: Tensor, original: Tensor) -> None:
        """Rows (n, width) of both, in the same order."""
        self.rows += len(quantized)
        self._own.addmm_(quantized.T, quantized)
        self._cross.addmm_(original.T, quantized)
        self._sums += torch.stack((quantized.sum(0, dtype=torch.float64), original.sum(0, dtype=torch.float64)))

    def means(self) -> tuple[Tensor, Tensor]:
        """Of the quantized network's rows and of the original's."""
        own, original = self._sums / self.rows
        return own, original

    def matrices(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """E x xᵀ and E x° xᵀ, of deviations from the means where `centred`."""
        own, cross = self._own.double() / self.rows, self._cross.double() / self.rows
        if centred:
            mean, original = self.means()
            own, cross = own - torch.outer(mean, mean), cross - torch.outer(original, mean)
        return own, cross


@dataclass(frozen=True, eq=False)
class Rounded:
    """integers: [out, in]. scale: [out, blocks]. bias: [out], None without one.

    before, after: the output error of nearest rounding, and of these integers, over the output's power.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor | None
    before: float
    after: float


@torch.no_grad()
def nearest(weight: Tensor, grid: WeightGrid, importance: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Integers [out, in] and short scales [out, blocks] of least weighted error. importance: E[x²], [in]."""
    importance = importance / importance.mean().clamp(min=1e-12) + 1e-4
    scale = short_scale(best_weight_scale(grid, weight, importance[None].float(), candidates), grid.scale_digits)
    steps = weight / _expanded(scale, weight.shape[1])
    return steps.round().clamp(grid.range.low, grid.range.high), scale


@torch.no_grad()
def fit(weight: Tensor, bias: Tensor | None, moments: Moments, grid: WeightGrid, candidates: int) -> Rounded:
    """weight: [out, in], bias: [out], both float32 of the original."""
    own, cross = moments.matrices(centred=bias is not None)
    # Of a few rows hardly any deviation is left, or none but what float32 rounds: those decide nothing.
    least = _LEAST_RIDGE * moments.matrices(centred=False)[0].diagonal().mean()
    ridge = torch.maximum(RIDGE * own.diagonal().mean(), least).clamp(min=1e-12)
    damped = own + ridge * torch.eye(len(own), dtype=own.dtype)
    wide = weight.double()
    wanted = torch.linalg.solve(damped, (wide @ (cross + ridge * torch.eye(len(own), dtype=own.dtype))).T).T
    power = ((wide @ cross) * wide).sum().abs().clamp(min=1e-12)
    floor = _error(wanted, wide, own, cross)
    seen = torch.maximum(own.diagonal(), least).float()
    first, first_scale = nearest(weight, grid, seen, candidates)
    plain = (first * _expanded(first_scale, weight.shape[1])).double()
    integers, scale = nearest(wanted.float(), grid, seen, candidates)
    integers = descend(integers.double(), _expanded(scale.double(), weight.shape[1]), wanted, damped, grid)
    found = integers * _expanded(scale.double(), weight.shape[1])
    before, after = _error(plain, wide, own, cross) - floor, _error(found, wide, own, cross) - floor
    if bias is not None:
        mean, original = moments.means()
        bias = (bias.double() + wide @ original - found @ mean).float()
    return Rounded(integers.float(), scale, bias, float(before / power), float(after / power))


def _error(candidate: Tensor, weight: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    """E |W x° - V x|², but for a constant."""
    return ((candidate @ own) * candidate).sum() - 2 * ((weight @ cross) * candidate).sum()


def descend(integers: Tensor, scale: Tensor, wanted: Tensor, moments: Tensor, grid: WeightGrid) -> Tensor:
    """Integers of less error tr (V - U) H (V - U)ᵀ, V = integers · scale, with U = wanted; all float64.

    scale: broadcastable to [out, in]. Each column gets its best value given all others, in order, `SWEEPS` times.
    """
    integers, diagonal = integers.clone(), moments.diagonal()
    scale = scale.expand_as(integers)
    gradient = (wanted - integers * scale) @ moments
    low, high = grid.range.low, grid.range.high
    for _ in range(SWEEPS):
        moved = 0
        for start in range(0, integers.shape[1], _BLOCK):
            columns = slice(start, start + _BLOCK)
            inside, local = moments[columns, columns], gradient[:, columns].clone()
            steps = torch.zeros_like(local)
            for at in range(local.shape[1]):
                column = start + at
                step = scale[:, column]
                best = integers[:, column] + local[:, at] / (diagonal[column] * step)
                change = best.round().clamp(low, high) - integers[:, column]
                integers[:, column] += change
                steps[:, at] = change * step
                local -= torch.outer(steps[:, at], inside[at])
            moved += int((steps != 0).sum())
            gradient -= steps @ moments[columns]
        if not moved:
            break
    return integers


def _expanded(scale: Tensor, width: int) -> Tensor:
    """A scale per weight, broadcastable to [out, in]."""
    return scale if scale.shape[1] == 1 else scale.repeat_interleave(width // scale.shape[1], 1)
