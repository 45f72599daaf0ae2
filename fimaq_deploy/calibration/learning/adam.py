"""Adam as a learning step needs it on the host: torch's kernel, and next to nothing around it.

`torch.optim.Adam` sorts its parameters by device and type in every step, counts steps for each of them and wraps each
step in hooks. For the dozens of small tensors that a block learns this takes four times as long as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.recording import node, once

# Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; torch's defaults.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Optimiser(Protocol):
    """What learning asks of an optimiser. Rates are `lr` of each of its groups, and may change between steps."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...

    def zero_grad(self) -> None: ...


class HostAdam:
    """The numbers of `torch.optim.Adam(groups, fused=True)` for float32 parameters on a CPU, bit for bit.

    groups: dictionaries with `params` and `lr`. Parameters without a gradient in the first step never have one.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.param_groups = list(groups)
        self._count = torch.zeros(())
        self._learned: list[tuple[dict[str, Any], list[nn.Parameter], list[Tensor], list[Tensor]]] | None = None

    @once
    def _first(self) -> list[tuple[dict[str, Any], list[nn.Parameter], list[Tensor], list[Tensor]]]:
        found = [(group, [each for each in group["params"] if each.grad is not None]) for group in self.param_groups]
        return [
            (group, own, [torch.zeros_like(each) for each in own], [torch.zeros_like(each) for each in own])
            for group, own in found
            if own
        ]

    @torch.no_grad()
    def step(self) -> None:
        self._learned = self._learned if self._learned is not None else self._first()
        self._count.add_(1)
        for learned in self._learned:
            grads = [each.grad for each in learned[1] if each.grad is not None]
            _move(*learned, grads, self._count)

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for each in group["params"]:
                each.grad = None


@node
def _move(
    group: dict[str, Any],
    parameters: list[nn.Parameter],
    means: list[Tensor],
    squares: list[Tensor],
    grads: list[Tensor],
    count: Tensor,
) -> None:
    """One step at the group's rate of now."""
    torch.ops.aten._fused_adam_(
        parameters,
        grads,
        means,
        squares,
        [],
        [count] * len(parameters),
        lr=group["lr"],
        beta1=_BETA1,
        beta2=_BETA2,
        weight_decay=0.0,
        eps=_EPSILON,
        amsgrad=False,
        maximize=False,
    )


def adam(groups: Sequence[dict[str, Any]], device: torch.device) -> Optimiser:
    """Over parameters that lie on a device; where steps are recorded, rates may be tensors."""
    if is_host(device):
        return HostAdam(groups)
    return torch.optim.Adam(list(groups), fused=True, capturable=of(device).records)
