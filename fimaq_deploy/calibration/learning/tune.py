"""Joint tuning: after every block has been reconstructed alone, all of them learn together for a while.

Blocks are reconstructed in order, so an early block never learns what the later ones make of its error. Here the whole
quantized network runs, and roundings (straight-through), scales, biases and norms follow the true cost: KL to the
full-precision class probabilities plus the error of the penultimate feature. The grids do not change, so neither does
what the engine executes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.learning import fisher
from fimaq_deploy.calibration.learning.batches import merged, minibatches
from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.learning.outputs import Divergence
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
) -> None:
    """Tune a frozen chain in place; it is frozen again afterwards.

    teacher: the full-precision chain; images: (N, C, H, W). divergence: of two outputs.
    """
    body = suffix_of(stages[:-1])
    head: Any = stages[-1].module
    groups = _parameter_groups(stages, settings)
    learned = [parameter for group in groups for parameter in group["params"]]
    optimiser = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.iterations)
    device = next(head.parameters()).device
    order = minibatches(len(images), settings.batch_size)
    for _ in range(settings.iterations):
        batch = _varied(images[next(order)].to(device), settings)
        for part in batch.split(images_tuned_at_once(images.shape[-2] * images.shape[-1])):
            features, logits = _answers(teacher, part)
            power = features.square().sum(1).mean().clamp(min=1e-12)
            with torch.enable_grad():
                tokens = body(part)
                loss = divergence(head(tokens), logits, settings.temperature)
                loss = loss + settings.feature_weight * fisher.mse(head.features(tokens) - features) / power
                (loss * (len(part) / len(batch))).backward()
        parallel.current().average_gradients(learned, torch.zeros((), device=device))
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    for stage in stages:
        _settle(stage.module)


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
    tokens = suffix_of(teacher[:-1])(images)
    head: Any = teacher[-1].module
    return head.features(tokens), head(tokens)


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
