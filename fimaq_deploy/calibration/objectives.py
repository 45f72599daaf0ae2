"""The reconstruction losses at work: what each one measures at a block before and while it is optimised.

An objective is made for one block. `refresh` takes new measurements with the block's current outputs; `cost` is the
loss of a minibatch. `fisher.py` holds the formulas. Measurements as long as the reconstruction set go to the activation
store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fimaq_deploy.calibration import fisher
from fimaq_deploy.calibration.activations import ActivationStore
from fimaq_deploy.calibration.gradients import Suffix, divergence_gradient, gauss_newton_directions
from fimaq_deploy.recipe import Reconstruction

# The block's current quantized outputs, in the order of the reconstruction set and in batches.
CurrentOutputs = Callable[[], Iterator[Tensor]]


@dataclass(frozen=True)
class BlockContext:
    """What an objective may look at. `z` and `logits` cover the whole reconstruction set, in full precision.

    suffix: the blocks after this one; features: the same up to the penultimate feature.
    """

    z: Tensor
    logits: Tensor
    suffix: Suffix
    features: Suffix
    settings: Reconstruction
    store: ActivationStore

    def deviations(self, outputs: CurrentOutputs) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """For each batch its place in the set, the current output ẑ and the deviation d = ẑ - z as (B, a)."""
        start = 0
        for output in outputs():
            where = slice(start, start + output.shape[0])
            yield where, output, (output - self.z[where].to(output.device)).flatten(1)
            start = where.stop

    def gradient(self, where: slice, output: Tensor) -> Tensor:
        """g for one batch as (B, a)."""
        return divergence_gradient(self.suffix, output, self.logits[where], self.settings.temperature).flatten(1)

    def keep(self, batches: Iterable[Tensor]) -> Tensor:
        """Store a measurement that has one row per image."""
        return self.store.collect(batches, len(self.z))


def _mean_loss(losses: Iterable[tuple[Tensor, int]]) -> float:
    """The mean over samples of batch means, never zero, to divide a loss by."""
    total, count = 0.0, 0
    for loss, size in losses:
        total, count = total + loss.item() * size, count + size
    return max(total / max(count, 1), 1e-20)


class Objective:
    """Plain reconstruction error; the base of the others."""

    refreshes = 0

    def __init__(self, context: BlockContext) -> None:
        self.context = context

    def refresh(self, outputs: CurrentOutputs) -> None:
        """Measure with the block's current outputs; due `refreshes` times, evenly spaced over the iterations."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        """The loss of a minibatch: `output` (B, ...) for the samples `index` (B,)."""
        return fisher.mse(self.deviation(output, index))

    def deviation(self, output: Tensor, index: Tensor) -> Tensor:
        return (output - self.context.z[index].to(output.device)).flatten(1)

    def release(self) -> None:
        """Give stored measurements back."""


class Brecq(Objective):
    """Squared gradients of every sample, measured once."""

    refreshes = 1

    def refresh(self, outputs: CurrentOutputs) -> None:
        context = self.context
        self.g = context.keep(context.gradient(where, output) for where, output, _ in context.deviations(outputs))
        self.start = _mean_loss((fisher.brecq(d, self.g[where]), len(d)) for where, _, d in context.deviations(outputs))

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return fisher.brecq(self.deviation(output, index), self.g[index]) / self.start

    def release(self) -> None:
        self.context.store.release(self.g)


class Dplr(Objective):
    """FIMA-Q as published: batch means of |g| and |d|, k refreshes, both parts restarting at one."""

    def __init__(self, context: BlockContext) -> None:
        super().__init__(context)
        self.refreshes = context.settings.rank
        self.gradients: list[Tensor] = []
        self.deviations: list[Tensor] = []
        self.starts = (1.0, 1.0)

    def refresh(self, outputs: CurrentOutputs) -> None:
        context, count = self.context, len(self.context.z)
        g_sum = d_sum = torch.zeros((), device=context.z.device)
        for where, output, d in context.deviations(outputs):
            g_sum, d_sum = g_sum + context.gradient(where, output).abs().sum(0), d_sum + d.abs().sum(0)
        self.gradients.append(g_sum / count)
        self.deviations.append(d_sum / count)
        self.stacks = torch.stack(self.gradients), torch.stack(self.deviations)
        batches = [(self._low_rank(d), self._diagonal(d), len(d)) for _, _, d in context.deviations(outputs)]
        self.starts = (
            _mean_loss((loss, size) for loss, _, size in batches),
            _mean_loss((loss, size) for _, loss, size in batches),
        )

    def _low_rank(self, d: Tensor) -> Tensor:
        return fisher.low_rank(d, *self.stacks)

    def _diagonal(self, d: Tensor) -> Tensor:
        return fisher.diagonal(d, self.gradients[-1])

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        d, settings = self.deviation(output, index), self.context.settings
        low_rank = settings.low_rank_weight * self._low_rank(d) / self.starts[0]
        return low_rank + settings.diagonal_weight * self._diagonal(d) / self.starts[1]


class LowRank(Dplr):
    """The low-rank part alone."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return self._low_rank(self.deviation(output, index)) / self.starts[0]


class Diagonal(Dplr):
    """The diagonal part alone."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return self._diagonal(self.deviation(output, index)) / self.starts[1]


class LeastSquares(Objective):
    """LS-ViT: one backward pass, signs kept."""

    refreshes = 1

    def refresh(self, outputs: CurrentOutputs) -> None:
        context = self.context
        fit = fisher.LeastSquaresFit()
        for where, output, d in context.deviations(outputs):
            fit.add(d, context.gradient(where, output))
        self.estimate = fit.estimate()
        self.start = _mean_loss(
            (fisher.least_squares(d, *self.estimate), len(d)) for _, _, d in context.deviations(outputs)
        )

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return fisher.least_squares(self.deviation(output, index), *self.estimate) / self.start


class GaussNewton(Objective):
    """The strongest directions of every sample's own Fisher matrix, plus the plain error that they cannot see."""

    refreshes = 1

    def refresh(self, outputs: CurrentOutputs) -> None:
        context = self.context
        self.directions = context.keep(self._directions(outputs))
        self.starts = (
            _mean_loss(
                (fisher.gauss_newton(d, self.directions[where]), len(d)) for where, _, d in context.deviations(outputs)
            ),
            _mean_loss((fisher.mse(d), len(d)) for _, _, d in context.deviations(outputs)),
        )

    def _directions(self, outputs: CurrentOutputs) -> Iterator[Tensor]:
        context, settings = self.context, self.context.settings
        for where, _, _ in context.deviations(outputs):
            z = context.z[where]
            yield gauss_newton_directions(context.suffix, z, settings.rank, settings.temperature)

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        d, settings = self.deviation(output, index), self.context.settings
        guided = fisher.gauss_newton(d, self.directions[index]) / self.starts[0]
        return settings.low_rank_weight * guided + settings.diagonal_weight * fisher.mse(d) / self.starts[1]

    def release(self) -> None:
        self.context.store.release(self.directions)


class Feature(Objective):
    """Align the penultimate feature through the full-precision suffix, plus the plain error (GLF-Q, 2026)."""

    refreshes = 1

    @torch.no_grad()
    def refresh(self, outputs: CurrentOutputs) -> None:
        context = self.context
        self.reference = context.keep(context.features(context.z[w]) for w, _, _ in context.deviations(outputs))
        self.starts = (
            _mean_loss(
                (fisher.mse(context.features(output) - self.reference[where]), len(output))
                for where, output, _ in context.deviations(outputs)
            ),
            _mean_loss((fisher.mse(d), len(d)) for _, _, d in context.deviations(outputs)),
        )

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        settings = self.context.settings
        aligned = fisher.mse(self.context.features(output) - self.reference[index]) / self.starts[0]
        local = fisher.mse(self.deviation(output, index)) / self.starts[1]
        return settings.low_rank_weight * aligned + settings.diagonal_weight * local

    def release(self) -> None:
        self.context.store.release(self.reference)


class HeadDivergence(Objective):
    """KL of the class probabilities alone: what FIMA-Q uses for the head block."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return self.divergence(output, self.context.logits[index])

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        context = self.context
        return fisher.kl_divergence(context.suffix(output), reference, context.settings.temperature)


class Divergence(HeadDivergence):
    """KL of the class probabilities through the full-precision suffix, the true cost, plus the plain error."""

    refreshes = 1

    @torch.no_grad()
    def refresh(self, outputs: CurrentOutputs) -> None:
        context = self.context
        self.starts = (
            _mean_loss((self.divergence(o, context.logits[w]), len(o)) for w, o, _ in context.deviations(outputs)),
            _mean_loss((fisher.mse(d), len(d)) for _, _, d in context.deviations(outputs)),
        )

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        settings = self.context.settings
        guided = super().cost(output, index) / self.starts[0]
        local = fisher.mse(self.deviation(output, index)) / self.starts[1]
        return settings.low_rank_weight * guided + settings.diagonal_weight * local


OBJECTIVES: dict[str, type[Objective]] = {
    "mse": Objective,
    "brecq": Brecq,
    "diag": Diagonal,
    "low_rank": LowRank,
    "dplr": Dplr,
    "least_squares": LeastSquares,
    "gauss_newton": GaussNewton,
    "feature": Feature,
    "divergence": Divergence,
}
