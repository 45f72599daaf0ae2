"""The reconstruction losses at work: what each one measures at a block before and while it is optimised.

An objective is made for one block. `refresh` takes new measurements with the block's current outputs; `cost` is the
loss of a minibatch. `fisher.py` holds the formulas. Statistics over images come from a sample of them,
because every measurement runs all blocks after this one; measurements of each image go to the activation store.

Nothing here fetches a number from the device: that would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.low_rank import LowRank as LowRankCost
from fimaq_deploy.calibration.learning.measurements import BlockContext, CurrentOutputs, Held, Mean, measurement
from fimaq_deploy.calibration.learning.minibatches import Rows

# Of a cost by kernels: `fused.fisher.Part`, which needs Triton.
Part = tuple[Tensor | None, Tensor | None, float]


class Objective:
    """Plain reconstruction error; the base of the others."""

    refreshes = 0

    def __init__(self, context: BlockContext) -> None:
        self.context = context

    def refresh(self, outputs: CurrentOutputs) -> None:
        """Measure with the block's current outputs; due `refreshes` times, evenly spaced over the iterations.

        What `cost` reads stays where it is: a step may have been recorded that reads it.
        """

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        """The loss of a minibatch: `output` (B, ...) for the samples `index` (B,)."""
        return self._plain(output, index)

    def _plain(self, output: Tensor, index: Tensor) -> Tensor:
        if of(output.device).fuses:
            return self._fused(output, index, diagonal=(None, None, 1.0))
        return fisher.mse(self.deviation(output, index))

    def _fused(
        self, output: Tensor, index: Tensor, low_rank: Part | None = None, diagonal: Part | None = None
    ) -> Tensor:
        """`fused.fisher.cost`, which needs no deviation in memory."""
        from fimaq_deploy.calibration.fused.fisher import cost

        z = self.context.z
        rows = z if isinstance(z, Rows) else Rows(z, output.device)
        return cost(output, *rows.source(index), low_rank=low_rank, diagonal=diagonal)

    def deviation(self, output: Tensor, index: Tensor) -> Tensor:
        return (output - self.context.z[index].to(output.device)).flatten(1)

    def stored(self) -> list[Rows]:
        """What `cost` reads for a minibatch, apart from the block's inputs."""
        own = (value for owner in (self, self.context) for value in getattr(owner, "__dict__", {}).values())
        return [value for value in own if isinstance(value, Rows)]

    def release(self) -> None:
        """Give stored measurements back."""


class Brecq(Objective):
    """Squared gradients of every sample, measured once."""

    refreshes = 1

    def refresh(self, outputs: CurrentOutputs) -> None:
        context, mean = self.context, Mean()

        def gradients() -> Iterator[Tensor]:
            for where, output, d in context.deviations(outputs, len(context.z)):
                g = context.gradient(where, output)
                mean.add(len(d), fisher.brecq(d, g))
                yield g

        self.g = context.keep(gradients())
        (self.start,) = mean.result()

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return fisher.brecq(self.deviation(output, index), self.g[index]) / self.start

    def release(self) -> None:
        self.context.store.release(self.g.tensor)


class Dplr(Objective):
    """FIMA-Q as published: batch means of |g| and |d|, k refreshes, both parts restarting at one."""

    def __init__(self, context: BlockContext) -> None:
        super().__init__(context)
        self.refreshes = context.settings.rank
        self.gradients: list[Tensor] = []
        self.deviations: list[Tensor] = []
        self.latest, self.factor, self.starts = (Held() for _ in range(3))
        self._again: Callable[[], tuple[Tensor, Tensor, Tensor]] | None = None

    def refresh(self, outputs: CurrentOutputs) -> None:
        if self._again is None:
            self._again = measurement(self.context, self.context.sample(self.refreshes), outputs)
        mean, (gradient, deviation, d) = parallel.current().mean, self._again()
        self.gradients.append(mean(gradient.clone()))
        self.deviations.append(mean(deviation.clone()))
        self.latest.hold(self.gradients[-1])
        self.factor.hold(self._factor())
        starts = Mean()
        starts.add(len(d), self._low_rank(d), self._diagonal(d))
        self.starts.hold(*starts.result())

    def _factor(self) -> Tensor:
        """(a, measurements so far), with columns of zeros for those to come where a recorded step reads it."""
        factor = fisher.low_rank_factor(torch.stack(self.gradients), torch.stack(self.deviations))
        place = of(factor.device)
        to_come = self.refreshes - factor.shape[1] if place.records else 0
        factor = nn.functional.pad(factor, (0, to_come))
        return factor.t().contiguous().t() if place.fuses else factor  # kernels read one column after another

    def _low_rank(self, d: Tensor) -> Tensor:
        if is_host(d.device):
            return LowRankCost.apply(d, self.factor)
        return fisher.low_rank(d, self.factor[0])

    def _diagonal(self, d: Tensor) -> Tensor:
        return fisher.diagonal(d, self.latest[0])

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        settings = self.context.settings
        if of(output.device).fuses:
            low = self.factor[0], self.starts[0], settings.low_rank_weight
            bent = self.latest[0], self.starts[1], settings.diagonal_weight
            return self._fused(output, index, low_rank=low, diagonal=bent)
        d = self.deviation(output, index)
        low_rank = settings.low_rank_weight * self._low_rank(d) / self.starts[0]
        return low_rank + settings.diagonal_weight * self._diagonal(d) / self.starts[1]

    def release(self) -> None:
        # It knows the learner, which knows this: activations would outlive the block.
        self._again = None


class LowRank(Dplr):
    """The low-rank part alone."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        if of(output.device).fuses:
            return self._fused(output, index, low_rank=(self.factor[0], self.starts[0], 1.0))
        return self._low_rank(self.deviation(output, index)) / self.starts[0]


class Diagonal(Dplr):
    """The diagonal part alone."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        if of(output.device).fuses:
            return self._fused(output, index, diagonal=(self.latest[0], self.starts[1], 1.0))
        return self._diagonal(self.deviation(output, index)) / self.starts[1]


class LeastSquares(Objective):
    """LS-ViT: one backward pass, signs kept."""

    refreshes = 1

    def refresh(self, outputs: CurrentOutputs) -> None:
        context, fit, mean = self.context, fisher.LeastSquaresFit(), Mean()
        batches = list(context.deviations(outputs, context.sample(self.refreshes)))
        for where, output, d in batches:
            fit.add(d, context.gradient(where, output))
        fit.sums = [parallel.current().sum(total) for total in fit.sums]
        self.estimate = fit.estimate()
        for _, _, d in batches:
            mean.add(len(d), fisher.least_squares(d, *self.estimate))
        (self.start,) = mean.result()

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return fisher.least_squares(self.deviation(output, index), *self.estimate) / self.start


class Feature(Objective):
    """Align the penultimate feature through the full-precision suffix, plus the plain error (GLF-Q, 2026)."""

    refreshes = 1

    @torch.no_grad()
    def refresh(self, outputs: CurrentOutputs) -> None:
        context, mean = self.context, Mean()
        whole = context.deviations(outputs, len(context.z))
        self.reference = context.keep(context.features(context.z[w].to(o.device)) for w, o, _ in whole)
        for where, output, d in context.deviations(outputs, context.sample(self.refreshes)):
            features = context.features(output)
            mean.add(len(d), fisher.mse(features - self.reference[where].to(d.device)), fisher.mse(d))
        self.starts = mean.result()

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        settings = self.context.settings
        aligned = fisher.mse(self.context.features(output) - self.reference[index]) / self.starts[0]
        local = self._plain(output, index) / self.starts[1]
        return settings.low_rank_weight * aligned + settings.diagonal_weight * local

    def release(self) -> None:
        self.context.store.release(self.reference.tensor)


class HeadDivergence(Objective):
    """KL of the class probabilities alone: what FIMA-Q uses for the head block."""

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        return self.divergence(output, self.context.logits[index])

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        context = self.context
        return context.divergence(context.suffix(output), reference, context.settings.temperature)


class Divergence(HeadDivergence):
    """KL of the class probabilities through the full-precision suffix, the true cost, plus the plain error."""

    refreshes = 1

    @torch.no_grad()
    def refresh(self, outputs: CurrentOutputs) -> None:
        context, mean = self.context, Mean()
        for where, output, d in context.deviations(outputs, context.sample(self.refreshes)):
            mean.add(len(d), self.divergence(output, context.logits[where]), fisher.mse(d))
        self.starts = mean.result()

    def cost(self, output: Tensor, index: Tensor) -> Tensor:
        settings = self.context.settings
        guided = super().cost(output, index) / self.starts[0]
        local = self._plain(output, index) / self.starts[1]
        return settings.low_rank_weight * guided + settings.diagonal_weight * local


OBJECTIVES: dict[str, type[Objective]] = {
    "mse": Objective,
    "brecq": Brecq,
    "diag": Diagonal,
    "low_rank": LowRank,
    "dplr": Dplr,
    "least_squares": LeastSquares,
    "feature": Feature,
    "divergence": Divergence,
}
