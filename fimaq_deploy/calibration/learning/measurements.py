"""What a block's losses are measured on: its outputs, their deviations and gradients, and the means over images.

Nothing here fetches a number from the device: that would make the host wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TypeVar

import torch
from torch import Tensor

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning import outputs as model_outputs
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.gradients import Suffix, divergence_gradient
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.calibration.learning.replay import Replay
from fimaq_deploy.recipe import Reconstruction

T = TypeVar("T")

# Of a block's output that are pulled through the suffix at a time in host memory. The graph of Swin-B keeps a hundred
# times as many: 0.9 GiB instead of the 5.4 of 32 images.
HOST_VALUES = 2**21

# The block's current quantized outputs for the first so many images of the reconstruction set, in batches.
CurrentOutputs = Callable[[int], Iterator[Tensor]]


@dataclass(frozen=True)
class BlockContext:
    """What an objective may look at. `z` and `logits` cover the whole reconstruction set, in full precision.

    suffix: the blocks after this one; features: the same up to the penultimate feature. divergence: of two outputs.
    pulled: images whose graph through the suffix may be in memory together. near: whether all that a measurement reads
    lies on the device, so that it can be recorded. warm: whether the like of it has run there before. depth: how many
    stages a measurement runs. pull: the gradient of the divergence at an output (B, ...) from its reference, where that
    is recorded by itself; None: run through the suffix.
    """

    z: Tensor | Rows
    logits: Tensor | Rows
    suffix: Suffix
    features: Suffix
    settings: Reconstruction
    store: ActivationStore
    divergence: model_outputs.Divergence = fisher.kl_divergence
    pulled: int = sys.maxsize
    near: bool = False
    warm: bool = False
    depth: int = 1
    pull: Callable[[Tensor, Tensor], Tensor] | None = None

    def sample(self, measurements: int) -> int:
        """How many images each of a block's measurements takes for statistics over images: at least a minibatch."""
        share = -(-self.settings.fisher_images // max(measurements, 1))
        return min(max(share, self.settings.batch_size), len(self.z))

    def deviations(self, outputs: CurrentOutputs, count: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """For each batch its place in the set, the current output ẑ and the deviation d = ẑ - z as (B, a)."""
        start = 0
        for output in outputs(count):
            where = slice(start, start + output.shape[0])
            yield where, output, (output - self.z[where].to(output.device)).flatten(1)
            start = where.stop

    def gradient(self, where: slice, output: Tensor) -> Tensor:
        """g for one batch as (B, a)."""
        logits, size = self.logits[where].to(output.device), self._pulled_at_once(output)
        pull = self.pull or self._pulled
        gradients = (pull(*part) for part in zip(output.split(size), logits.split(size), strict=True))
        return torch.cat(list(gradients)).flatten(1)

    def _pulled(self, output: Tensor, reference: Tensor) -> Tensor:
        return divergence_gradient(self.suffix, output, reference, self.settings.temperature, self.divergence)

    def _pulled_at_once(self, output: Tensor) -> int:
        """Images whose graph is in memory together; a GPU takes the whole batch."""
        whole = len(output) if not is_host(output.device) else max(1, HOST_VALUES // output[0].numel())
        return min(whole, self.pulled)

    def repeated(self, measure: Callable[[], T], images: int, depth: int) -> Replay[T]:
        """Of a measurement that is taken several times on the same images; the next one overwrites its results.

        depth: how many stages it runs.
        """
        values = self.z.tensor[0].numel() * images * depth if isinstance(self.z, Rows) else sys.maxsize
        return Replay(measure, self.z.device, record=self.near, warm_up=0 if self.warm else 1, values=values)

    def keep(self, batches: Iterable[Tensor]) -> Rows:
        """Store a measurement that has one row per image."""
        return self.store.rows(self.store.collect(batches, len(self.z)), self.z.device)


class Mean:
    """Means over samples of several losses whose batch means come one after another; never zero, to divide by."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, size: int, *losses: Tensor) -> None:
        total = torch.stack(losses) * size
        self._total = total if self._total is None else total + self._total
        self._count += size

    def result(self) -> tuple[Tensor, ...]:
        assert self._total is not None
        return parallel.current().mean(self._total / self._count).clamp(min=1e-20).unbind()


class Held:
    """Measured tensors that stay where they are: new numbers are written over the old ones."""

    def __init__(self) -> None:
        self._tensors: tuple[Tensor, ...] = ()

    def hold(self, *tensors: Tensor) -> None:
        if [each.shape for each in tensors] != [each.shape for each in self._tensors]:
            self._tensors = tuple(each.clone() for each in tensors)
            return
        for old, new in zip(self._tensors, tensors, strict=True):
            old.copy_(new)

    def __getitem__(self, number: int) -> Tensor:
        return self._tensors[number]


def measurement(
    context: BlockContext, images: int, outputs: CurrentOutputs
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Of the means of |g| and of |d| over a sample, each (a,), and all d, (B, a)."""

    def seen() -> tuple[list[Tensor], list[Tensor]]:
        _, found, deviations = zip(*context.deviations(outputs, images), strict=True)
        return list(found), list(deviations)

    def measured(found: list[Tensor], deviations: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        ends = list(accumulate(map(len, found)))
        places = [slice(end - len(output), end) for end, output in zip(ends, found, strict=True)]
        gradients = (context.gradient(*each).abs().sum(0) for each in zip(places, found, strict=True))
        d = torch.cat(deviations)
        return sum(gradients, torch.zeros((), device=d.device)) / len(d), d.abs().mean(0), d

    if context.pull is None:
        return context.repeated(lambda: measured(*seen()), images, context.depth)
    # Gradients have their own recording, which knows more than one block.
    again = context.repeated(lambda: tuple(chain(*seen())), images, 1)

    def measure() -> tuple[Tensor, Tensor, Tensor]:
        both = again()
        return measured(list(both[: len(both) // 2]), list(both[len(both) // 2 :]))

    return measure
