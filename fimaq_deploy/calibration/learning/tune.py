"""Joint tuning: after every block has been reconstructed alone, all of them learn together for a while.

Blocks are reconstructed in order, so an early block never learns what the later ones make of its error. Here the whole
quantized network runs, and roundings (straight-through), scales, biases and norms follow the true cost: KL to the
full-precision class probabilities plus the error of the penultimate feature. The grids do not change, so neither does
what the engine executes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.device import of, place_of
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.batches import merged, minibatches
from fimaq_deploy.calibration.learning.minibatches import Rows, read_ahead
from fimaq_deploy.calibration.learning.outputs import Divergence
from fimaq_deploy.calibration.learning.replay import Replay
from fimaq_deploy.calibration.quantizers import rounding
from fimaq_deploy.calibration.quantizers.layers import (
    activation_quantizers,
    freeze,
    high_precision_parameters,
    quantized_layers,
    thaw,
)
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.recipe import Tuning


def tune(
    stages: Sequence[Stage],
    teacher: Sequence[Stage],
    images: Tensor,
    settings: Tuning,
    divergence: Divergence = fisher.kl_divergence,
    at_once: int | None = None,
) -> None:
    """Tune a frozen chain in place; it is frozen again afterwards.

    teacher: the full-precision chain; images: (N, C, H, W). divergence: of two outputs. at_once: images whose graph
    through the whole chain may be in memory together; None is what the host computes fastest.
    """
    group, device = parallel.current(), place_of(stages[-1].module)
    size = at_once or images_tuned_at_once(images.shape[-2] * images.shape[-1])
    groups = _parameter_groups(stages, settings)
    learned = [parameter for each in groups for parameter in each["params"]]
    optimiser = torch.optim.Adam(groups, fused=True, capturable=of(device).records)
    batches = (_Tabled if of(device).records else _Scheduled)(images, settings, optimiser, device)

    def step() -> tuple[()]:
        batch = batches.take()
        for part in batch.split(size):
            _pull_back(stages, teacher, part, settings, divergence, len(part) / len(batch))
        group.average_gradients(learned, torch.zeros((), device=device))
        optimiser.step()
        optimiser.zero_grad()
        return ()

    iterate = Replay(step, device, record=group.size == 1)
    for iteration in range(settings.joint_iterations):
        batches.prepare(iteration)
        iterate()
    for stage in stages:
        _settle(stage.module)


class _Scheduled:
    """Images and rates as the host sets them, one iteration after another."""

    def __init__(self, images: Tensor, settings: Tuning, optimiser: torch.optim.Adam, device: torch.device) -> None:
        self._images, self._settings, self._device = images, settings, device
        self._order = minibatches(len(images), settings.batch_size)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.joint_iterations)

    def prepare(self, iteration: int) -> None:
        if iteration:
            self._schedule.step()

    def take(self) -> Tensor:
        return _varied(self._images[next(self._order)].to(self._device), self._settings)


class _Tabled:
    """The same for a step that is recorded: images and rates arrive where it reads them."""

    def __init__(self, images: Tensor, settings: Tuning, optimiser: torch.optim.Adam, device: torch.device) -> None:
        groups, count = optimiser.param_groups, settings.joint_iterations
        first = torch.tensor([each["lr"] for each in groups])
        factors = torch.tensor([(1 + math.cos(math.pi * done / count)) / 2 for done in range(count)])
        self._table = of(device).send(factors[:, None] * first)
        self._rates = torch.zeros(len(groups), device=device)
        for each, rate in zip(groups, self._rates, strict=True):
            each["lr"] = rate
        self._settings, self._rows, self._batch = settings, Rows(images, device), torch.empty(0)
        self._order = read_ahead(minibatches(len(images), settings.batch_size), lambda: [self._rows])

    def prepare(self, iteration: int) -> None:
        batch = _varied(self._rows[next(self._order)], self._settings)
        self._batch = self._batch.copy_(batch) if iteration else batch.clone()
        self._rates.copy_(self._table[iteration])

    def take(self) -> Tensor:
        return self._batch


def _pull_back(
    stages: Sequence[Stage],
    teacher: Sequence[Stage],
    images: Tensor,
    settings: Tuning,
    divergence: Divergence,
    share: float,
) -> None:
    """Leave the gradients of the true cost of some images behind, times their share of the batch."""
    head: Any = stages[-1].module
    features, logits = _answers(teacher, images)
    power = features.square().sum(1).mean().clamp(min=1e-12)
    with torch.enable_grad():
        tokens, taken = _passed(stages[:-1], images)
        loss = divergence(_joined(taken, head(tokens)), logits, settings.temperature)
        loss = loss + settings.feature_weight * fisher.mse(head.features(tokens) - features) / power
        (loss * share).backward()


def _varied(images: Tensor, settings: Tuning) -> Tensor:
    """Half of the images mirrored, and each mixed with another one: the teacher answers whatever it is shown."""
    if settings.mirror:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    if settings.mixing:
        share = torch.rand(len(images), 1, 1, 1, device=images.device) * settings.mixing
        images = torch.lerp(images, images[torch.randperm(len(images), device=images.device)], share)
    return images


def _answers(teacher: Sequence[Stage], images: Tensor) -> tuple[Tensor, Tensor]:
    tokens, taken = _passed(teacher[:-1], images)
    head: Any = teacher[-1].module
    return head.features(tokens), _joined(taken, head(tokens))


def _passed(stages: Sequence[Stage], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What stages hand on, and what they hand out of the chain on the way."""
    taken = []
    for stage in stages:
        x = stage.module(x)
        taken += [] if stage.tap is None else [stage.tap(x)]
    return x, taken


def _joined(taken: Sequence[Tensor], answer: Tensor) -> Tensor:
    return torch.cat([*taken, answer], 1) if taken else answer


def images_tuned_at_once(pixels: int) -> int:
    """How many images of so many pixels one backward pass through the whole network takes: as many as 8 of 224×224."""
    return max(1, 8 * 224 * 224 // max(pixels, 1))


def _parameter_groups(stages: Sequence[Stage], settings: Tuning) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for stage in stages:
        thaw(stage.module)
        for _, layer in quantized_layers(stage.module):
            attached = rounding.attach(layer.weight_quantizer, "straight_through")
            assert attached is not None
            groups.append({"params": list(attached.parameters()), "lr": settings.weight_lr})
            groups.append({"params": layer.weight_quantizer.learn_scale(), "lr": settings.scale_lr})
        for _, quantizer in activation_quantizers(stage.module):
            groups += quantizer.learn(0.0, settings.scale_lr)
        groups.append({"params": high_precision_parameters(stage.module), "lr": settings.other_lr})
    return merged(groups)


def _settle(module: nn.Module) -> None:
    for _, quantizer in activation_quantizers(module):
        quantizer.settle()
    for _, layer in quantized_layers(module):
        rounding.harden(layer.weight_quantizer)
        layer.weight_quantizer.settle_scale()
    module.requires_grad_(False)
    freeze(module)
