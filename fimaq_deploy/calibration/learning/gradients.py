"""Measurements of the Fisher information: gradients at a block's output, pulled back through the blocks after it.

Only the suffix runs, in full precision and without parameter gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.learning.fisher import kl_divergence
from fimaq_deploy.calibration.learning.outputs import Divergence
from fimaq_deploy.models.families.roles import Stage

Suffix = Callable[[Tensor], Tensor]


def suffix_of(stages: Sequence[Stage]) -> Suffix:
    """The composition of the remaining stages, block output to logits."""

    def run(x: Tensor) -> Tensor:
        for stage in stages:
            x = stage.module(x)
        return x

    return run


def features_of(stages: Sequence[Stage]) -> Suffix:
    """From what the first of the remaining stages gets to the penultimate feature."""
    between, head = suffix_of(stages[:-1]), stages[-1].module if stages else None
    return lambda x: head.features(between(x))  # type: ignore[operator, union-attr]


def answer_of(stages: Sequence[Stage], tap: nn.Module | None = None) -> Suffix:
    """The same, to everything that is handed out from here on, joined: what came before cannot change any more.

    tap: of what goes in. Taps answer matrices, as those of `Outputs.stages` do.
    """
    if tap is None and not any(stage.tap for stage in stages):
        return suffix_of(stages)

    def run(x: Tensor) -> Tensor:
        found = [] if tap is None else [tap(x)]
        for stage in stages:
            x = stage.module(x)
            found += [] if stage.tap is None else [stage.tap(x)]
        return torch.cat([*found, x], 1)

    return run


def divergence_gradient(
    suffix: Suffix, output: Tensor, reference: Tensor, temperature: float, divergence: Divergence = kl_divergence
) -> Tensor:
    """Gradient of the divergence, KL(p_fp || p) for class logits, at each sample's block output, summed over the batch.

    output: (B, ...), the quantized block's; reference: full-precision logits (B, classes). Shaped like `output`.
    """
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        loss = divergence(suffix(leaf), reference, temperature) * leaf.shape[0]
    return torch.autograd.grad(loss, leaf)[0]


def pull_back(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """What `loss.backward()` leaves at parameters, none of them twice.

    That copies every gradient while a step is recorded on the host, because the recording holds it too.
    """
    if not is_host(loss.device):
        loss.backward()
        return
    taken: set[int] = set()
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
            continue
        # Optimisers want the layout of the parameter, and may change what they are given.
        own = gradient.stride() == parameter.stride() and gradient.data_ptr() not in taken
        taken.add(gradient.data_ptr())
        parameter.grad = gradient if own else torch.empty_like(parameter).copy_(gradient)
