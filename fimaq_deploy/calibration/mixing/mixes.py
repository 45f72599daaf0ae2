"""A mix of formats within a budget: measured alone, chosen together, looked at again.

1. the model is quantized in each format whole, and every layer's loss is measured alone (`options`);
2. the front of all mixes follows exactly (`front`), and the budget names one of them;
3. what each layer costs in that one, among all the others, corrects what it cost alone: the second mix is the one that
   the corrected losses name. Both learn, and the second is taken where it clearly loses less on images that neither
   learned from: on those that they did, the loss says little.

Steps 1 and 3 look at models whose scales are searched and that have not learned: layers that learned make up for each
other's errors, and what one of them costs then says little of another mix (docs/log, budgets again).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.outputs import Outputs
from fimaq_deploy.calibration.mixing.front import Mix, cheapest_within, front
from fimaq_deploy.calibration.mixing.options import Option, Options
from fimaq_deploy.calibration.quantized_model import QuantizedModel

# A layer costs at most so many times more, or less, among others than alone: what is spared is noisy.
_LARGEST_CORRECTION = 4.0

# By how many standard errors, over images, the second mix has to lose less than the first.
_CLEARLY = 2.0

Make = Callable[[dict[str, str]], QuantizedModel]
Judge = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Tried:
    """A mix that learned. loss: of the outputs, measured with all layers together, the mean of images."""

    mix: Mix
    loss: float


def settled(
    options: Options, cost: Callable[[Option], int], budget: float, search: Make, learn: Make, judge: Judge
) -> list[Tried]:
    """The mixes that were tried for a budget, the best one last. There has to be one within it.

    search: quantizes with a format for each layer without learning, and measures the sensitivity. learn: the same as a
    build learns. judge: the losses of a quantized model, (N,) of images that it did not learn from.
    """
    first = cheapest_within(front(options, cost), budget)
    assert first is not None, "the budget was compared with the smallest mix"
    second = cheapest_within(front(corrected(options, first, search(first.formats)), cost), budget)
    losses = judge(learn(first.formats))
    tried = [Tried(first, losses.mean().item())]
    if second is not None and second.formats != first.formats:
        others = judge(learn(second.formats))
        tried.append(Tried(_priced(second, options), others.mean().item()))
        if not _is_clear(losses - others):
            tried.reverse()
    return tried


def _is_clear(gains: Tensor) -> bool:
    """Whether the mean of gains, (N,), is above chance."""
    return bool(gains.mean() > _CLEARLY * gains.std() / len(gains) ** 0.5)


def corrected(options: Options, mix: Mix, model: QuantizedModel) -> dict[str, tuple[Option, ...]]:
    """Losses as they are among the other layers of a mix, as far as they are known."""
    seen = {one.name: one for one in model.sensitivity if one.kind == "layer"}
    found = {}
    for name, each in options.items():
        factor = 1.0
        if name in seen and seen[name].alone > 0:
            ratio = seen[name].spared / seen[name].alone
            factor = min(max(ratio, 1 / _LARGEST_CORRECTION), _LARGEST_CORRECTION)
        found[name] = tuple(replace(one, loss=factor * one.loss) for one in each)
    return found


@torch.no_grad()
def outputs_loss(original: nn.Module, classes: int, images: Tensor, at_once: int) -> Judge:
    """How far a model's outputs are from the original's: the divergence that learning lowers, at temperature 1.

    images: (N, C, H, W), of which `at_once` run together. The judge's losses are (N,), on the host.
    """
    batches = images.split(at_once)
    outputs = Outputs.of(original(batches[0]), classes)
    reference = [outputs.joined(original(batch)) for batch in batches]

    @torch.no_grad()
    def judge(model: nn.Module) -> Tensor:
        pairs = zip((outputs.joined(model(batch)) for batch in batches), reference, strict=True)
        each = (rows for pair in pairs for rows in zip(*(one.split(1) for one in pair), strict=True))
        return torch.stack([outputs.divergence(own, exact, 1.0) for own, exact in each]).cpu()

    return judge


def _priced(mix: Mix, options: Options) -> Mix:
    """A mix with the sum of the losses that were measured alone."""
    loss = sum(one.loss for name, each in options.items() for one in each if one.format == mix.formats[name])
    return Mix(mix.formats, mix.cost, loss)
