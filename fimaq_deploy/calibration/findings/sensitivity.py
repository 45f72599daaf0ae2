"""Which blocks and layers cost accuracy: each one quantized alone, and each one spared while all others are quantized.

The cost is the Fisher loss of the logits, ½ dᵀ(diag(p) - ppᵀ)d with d the logits' deviation and p the class
probabilities: KL to second order, with the exact Fisher information matrix of the softmax. It needs no labels, and the
reference is the same network with nothing quantized (joint tuning may have moved its biases and norms).

A unit is a stage of the chain (kind "block"), or a Linear or convolution with its input, or the four operands of an
attention's matmuls (kind "layer"). Both boundaries advance one stage at a time, so the blocks before a unit never run
again for it; the blocks after it do. In all that is about as many passes over the images as there are units.

A low-bit network answers the smallest change with other roundings further on, so what is spared is noisy: at W4A4 a
few hundred images are needed before the patch embedding's stops looking like a cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.fisher import softmax_fisher
from fimaq_deploy.calibration.learning.gradients import answer_of
from fimaq_deploy.calibration.quantizers.layers import AttentionQuantizers, QuantizedLayer, enable_quantization
from fimaq_deploy.models.families.roles import Stage

_BATCH_SIZE = 32

Progress = Callable[[int, int, str], None]

# Of a deviation of the outputs and the outputs, (B, columns) both: a scalar.
Cost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sensitivity:
    """One unit. alone: the loss with only it quantized; spared: by how much the full loss falls without it."""

    name: str
    kind: Literal["block", "layer"]
    alone: float
    spared: float


@dataclass(frozen=True)
class Unit:
    """What is switched between full precision and its integers as one."""

    name: str
    kind: Literal["block", "layer"]
    module: nn.Module

    def switch(self, on: bool) -> None:
        if isinstance(self.module, QuantizedLayer):
            self.module.enable(on)
        else:
            enable_quantization(self.module, on)


@torch.no_grad()
def measure_sensitivity(
    model: nn.Module,
    stages: Sequence[Stage],
    images: Tensor,
    progress: Progress | None = None,
    cost: Cost = softmax_fisher,
    at_once: int = _BATCH_SIZE,
    named: nn.Module | None = None,
) -> list[Sensitivity]:
    """Every block and layer of a frozen chain that still has its full-precision weights, in the order of the model.

    stages: the chain of `model`. images: (N, C, H, W) on the model's device. cost: of a deviation of the
    outputs (`learning.outputs`). at_once: images that run together. named: what names of layers are in, where `model`
    is a wrapper of it.
    Everything is quantized afterwards.
    """
    batches = list(images.split(min(_BATCH_SIZE, at_once)))
    enable_quantization(model, False)
    reference = [model(batch) for batch in batches]
    exact, quantized = (
        _Boundary(stages, batches, reference, False, cost),
        _Boundary(stages, batches, reference, True, cost),
    )
    (whole,) = quantized.losses(0, [None])
    found = []
    for position, stage in enumerate(stages):
        if progress:
            progress(position, len(stages), f"sensitivity of {stage.name}")
        units = list(_units(named or model, stage))
        alone = exact.losses(position, units)
        without = quantized.losses(position, units)
        found += [
            Sensitivity(unit.name, unit.kind, one, whole - rest)
            for unit, one, rest in zip(units, alone, without, strict=True)
        ]
        exact.advance(position)
        quantized.advance(position)
    enable_quantization(model, True)
    return found


class _Boundary:
    """The inputs of a stage, batch by batch, when everything is quantized (`on`) or nothing."""

    def __init__(
        self, stages: Sequence[Stage], inputs: Sequence[Tensor], logits: Sequence[Tensor], on: bool, cost: Cost
    ) -> None:
        self.stages, self.inputs, self.reference, self.on, self.cost = stages, inputs, logits, on, cost

    def losses(self, position: int, units: Sequence[Unit | None]) -> list[float]:
        """The loss with each unit of a stage switched the other way; with none for None."""
        self._settle(position)
        return [self._loss(position, unit) for unit in units]

    def _loss(self, position: int, unit: Unit | None) -> float:
        if unit:
            unit.switch(not self.on)
        total = 0.0
        for x, reference in zip(self.inputs, self.reference, strict=True):
            logits = answer_of(self.stages[position:])(x)
            total += self.cost(logits - reference[:, -logits.shape[1] :], reference).item() * len(x)
        if unit:
            unit.switch(self.on)
        return total / sum(map(len, self.inputs))

    def advance(self, position: int) -> None:
        """Past a stage."""
        self._settle(position)
        self.inputs = [self.stages[position].module(x) for x in self.inputs]

    def _settle(self, position: int) -> None:
        for stage in self.stages[position:]:
            enable_quantization(stage.module, self.on)


def _units(model: nn.Module, stage: Stage) -> Iterator[Unit]:
    """The stage, and what can be quantized in it."""
    yield Unit(stage.name, "block", stage.module)
    names = {id(module): name for name, module in model.named_modules()}
    for module in stage.module.modules():
        if isinstance(module, QuantizedLayer):
            yield Unit(names[id(module)], "layer", module)
        elif isinstance(module, AttentionQuantizers) and module.q.grid is not None:
            yield Unit(names[id(module)].replace("quantizers", "operands"), "layer", module)
