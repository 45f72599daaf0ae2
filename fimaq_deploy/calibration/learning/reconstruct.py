"""Block reconstruction: one stage after another learns roundings and scales so that the network's answer survives.

For every stage, in order:

1. push the full-precision boundary activations through it (its target z), and search initial scales on its real inputs;
2. minimise an objective of d = ẑ - z over roundings and activation scales, with inputs that mix quantized and
   full-precision values (QDrop);
3. harden the roundings, and push the quantized boundary activations through it.

Both boundaries advance one stage at a time, so the whole costs O(depth) block passes; only the Fisher measurements run
the blocks after the current one, in full precision.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.device import is_host, of, place_of
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.adam import Optimiser, adam
from fimaq_deploy.calibration.learning.arithmetic import matmul_precision
from fimaq_deploy.calibration.learning.batches import merged, minibatches
from fimaq_deploy.calibration.learning.chain_gradients import ChainGradients
from fimaq_deploy.calibration.learning.convergence import CEILING, NOTHING, Schedule
from fimaq_deploy.calibration.learning.fisher import kl_divergence
from fimaq_deploy.calibration.learning.gelus import gelus_handed_on
from fimaq_deploy.calibration.learning.gradients import answer_of, features_of, pull_back
from fimaq_deploy.calibration.learning.measurements import BlockContext
from fimaq_deploy.calibration.learning.minibatches import Rows
from fimaq_deploy.calibration.learning.objectives import OBJECTIVES, HeadDivergence, Objective
from fimaq_deploy.calibration.learning.outputs import Divergence
from fimaq_deploy.calibration.learning.passes import error_of_passes, minibatch_outputs
from fimaq_deploy.calibration.learning.replay import Replay
from fimaq_deploy.calibration.learning.steps import Steps, Tables
from fimaq_deploy.calibration.quantizers import rounding
from fimaq_deploy.calibration.quantizers.fake_quant import rows_kept
from fimaq_deploy.calibration.quantizers.layers import (
    activation_quantizers,
    enable_quantization,
    high_precision_parameters,
    quantized_layers,
)
from fimaq_deploy.calibration.quantizers.rounding import AdaRound, SignGradient
from fimaq_deploy.calibration.quantizers.shared_scales import SharedScales
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.recipe import Reconstruction

_CURVE_POINTS = 25
EVERY_IMAGE = sys.maxsize  # a minibatch is computed as a whole
RECORDED_IMAGES = 128  # what the errors of a block's record are measured on


@dataclass(frozen=True)
class Limits:
    """What a block may take. at_once: images that are computed together at most while it learns.

    warm: a block before it has learned on the same images, so that libraries have set up what measurements need.
    gradients: what blocks of one chain share.
    """

    at_once: int = EVERY_IMAGE
    warm: bool = False
    gradients: ChainGradients | None = None


@dataclass(frozen=True)
class BlockRecord:
    """How one block was reconstructed. Losses are squared output errors relative to the output's power, on a sample.

    iterations: how many were used; stopped: why no more, one of `convergence`'s outcomes.
    curve: (iteration, loss of its minibatch) now and then while learning. Not the objective, which starts again with
    every Fisher measurement. Inputs and activations are mixed with full precision then, so it lies below the losses.
    """

    name: str
    loss_before: float
    loss_after: float
    iterations: int
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    stopped: str = CEILING

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BlockRecord:
        """Of `as_dict`, also where JSON made lists of its tuples."""
        curve = tuple((int(iteration), float(loss)) for iteration, loss in fields.get("curve", ()))
        return cls(**{**fields, "curve": curve})


class BlockLearner:
    """Optimises one stage against one objective."""

    def __init__(
        self,
        stage: nn.Module,
        objective: Objective,
        inputs: Sequence[Tensor | Rows],
        settings: Reconstruction,
        at_once: int = EVERY_IMAGE,
        recordable: bool = True,
    ) -> None:
        self.recordable = recordable
        self.stage, self.objective, self.settings, self.at_once = stage, objective, settings, at_once
        self.device = place_of(stage)
        self.fp_in, self.q_in = (each if isinstance(each, Rows) else Rows(each, self.device) for each in inputs)
        self.quantizers = [quantizer for _, quantizer in activation_quantizers(stage)]
        self.weights = [layer.weight_quantizer for _, layer in quantized_layers(stage)]
        self.watched: list[tuple[int, tuple[Tensor, Tensor]]] = []
        self.optimisers = self._optimisers()
        self._leaves = list(dict.fromkeys(self._learned()))
        self.soft = [module for module in self.roundings if isinstance(module, AdaRound)]
        # AdaRound's loss rises as its regulariser sets in: it keeps to its schedule.
        self.schedule = Schedule(settings.iterations_a_block, 0 if self.soft else settings.patience, self.device)
        self.scales = SharedScales([*self.quantizers, *self.weights])
        self.regularised = False
        self.group = parallel.current()

    def _optimisers(self) -> list[Optimiser]:
        settings = self.settings
        self.roundings = [r for q in self.weights if (r := rounding.attach(q, settings.rounding)) is not None]
        groups = merged(group for q in self.quantizers for group in q.learn(settings.qdrop, settings.scale_lr))
        if not any(isinstance(r, SignGradient) for r in self.roundings):
            groups.append({"params": [p for r in self.roundings for p in r.parameters()], "lr": settings.weight_lr})
        if settings.weight_scale_lr:
            scales = [scale for q in self.weights for scale in q.learn_scale()]
            groups.append({"params": scales, "lr": settings.weight_scale_lr})
        if settings.other_lr and not self._is_exact:
            groups.append({"params": high_precision_parameters(self.stage), "lr": settings.other_lr})
        groups = [{**group, "initial_lr": group["lr"]} for group in merged(groups)]
        # A recorded step reads its rates from tensors: see `_steps`.
        return [adam(groups, self.device)] if groups else []

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def _steps(self) -> Steps | Tables:
        """Where a step finds its minibatch and its rates: Adam's, that of signed steps and AdaRound's exponent."""
        groups = self._groups
        rates = torch.zeros(len(groups) + 2, device=self.device)
        self.sign_lr, self.exponent = rates[-2], rates[-1]
        order = minibatches(len(self.q_in), self.settings.batch_size)
        if not of(self.device).records:
            return Steps(order, self._stored, self._rates, self._assign)
        for group, rate in zip(groups, rates, strict=False):
            group["lr"] = rate
        return Tables(order, self.settings.iterations_a_block, self._stored, self._rates, rates)

    def _rates(self, progress: float) -> list[float]:
        """Cosine decay for Adam, linear for signed steps, and AdaRound's exponent from 20 to 2 after its warm-up."""
        factor, warm_up = (1 + math.cos(math.pi * progress)) / 2, self.settings.warm_up
        exponent = 20 - 18 * max(progress - warm_up, 0) / max(1 - warm_up, 1e-9)
        adam = [group["initial_lr"] * factor for group in self._groups]
        return [*adam, self.settings.weight_lr * (1 - progress), exponent]

    def _assign(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self._groups, rates, strict=False):
            group["lr"] = rate
        if len(self.roundings) > len(self.soft):
            self.sign_lr.fill_(rates[-2])
        if self.soft:
            self.exponent.fill_(rates[-1])

    def outputs(self, count: int) -> Iterator[Tensor]:
        """Current outputs for the first `count` quantized inputs, without drops."""
        self.scales.make()
        for quantizer in self.quantizers:
            quantizer.drop = 0.0
        yield from minibatch_outputs(self.stage, self.q_in.tensor[:count], self.settings.batch_size, self.at_once)
        for quantizer in self.quantizers:
            quantizer.drop = self.settings.qdrop

    def learn(self) -> str:
        """Learn and settle. Returns why no more iterations were taken."""
        if not (self.optimisers or self.roundings):
            return NOTHING
        # No attributes: in a cycle of references the block's activations would outlive it.
        steps = self._steps()
        record = self.group.size == 1 and self.recordable
        iterate = Replay(lambda: self._iteration(steps), self.device, record=record, values=self._values)
        with matmul_precision(self.device, self.settings.precision), gelus_handed_on(self.stage):
            for iteration in self.schedule:
                if self._measurement_is_due(iteration):
                    self.objective.refresh(self.outputs)
                    self.schedule.restart()
                if self._regulariser_sets_in():
                    iterate.forget()
                steps.prepare(iteration, self.schedule.progress_at)
                self._watch(iteration, *iterate())
                if self.schedule.observe():
                    steps.reschedule(self.schedule.progress_at)
        for quantizer in self.quantizers:
            quantizer.settle()
        for weight in self.weights:
            rounding.harden(weight)
            weight.settle_scale()
        self.stage.requires_grad_(False)
        return self.schedule.outcome

    def _stored(self) -> list[Rows]:
        """What a minibatch is read from."""
        return [*((self.fp_in,) if self._mixes else ()), self.q_in, *self.objective.stored()]

    @property
    def _values(self) -> int:
        """How many numbers go into a step; more than can be counted where they have to be fetched."""
        if any(rows.ahead for rows in self._stored()):
            return EVERY_IMAGE
        return self.settings.batch_size * self.q_in.tensor[0].numel()

    @property
    def _is_exact(self) -> bool:
        """Whether the stage computes what the original does: nothing is quantized in it or before it."""
        return self.fp_in.tensor is self.q_in.tensor and not (self.quantizers or self.weights)

    @property
    def _mixes(self) -> bool:
        return bool(self.settings.qdrop) and self.fp_in.tensor is not self.q_in.tensor

    def _measurement_is_due(self, iteration: int) -> bool:
        """Evenly spaced over the ceiling, until the schedule winds down."""
        refreshes, ceiling = self.objective.refreshes, self.schedule.ceiling
        return self.schedule.winding_from is None and iteration * refreshes % ceiling < refreshes

    def _regulariser_sets_in(self) -> bool:
        """Whether AdaRound's loss has a part more from now on."""
        before = self.regularised
        self.regularised = bool(self.soft) and self.schedule.progress >= self.settings.warm_up
        return self.regularised and not before

    def _iteration(self, steps: Steps | Tables) -> tuple[Tensor, Tensor]:
        """One step: the indices of its minibatch and their outputs. Runs the same kernels every time."""
        index = steps.begin()
        with torch.enable_grad():
            loss, output = self._pulled_back(index)
        loss = self.group.average_gradients(self._learned(), loss)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        for module in self.roundings:
            if isinstance(module, SignGradient):
                module.step(self.sign_lr)
        self.schedule.take_in(loss)
        return index, output.detach()

    def _pulled_back(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the outputs of a minibatch, whose gradients are left behind; in parts where it is large."""
        if len(index) <= self.at_once:
            return self._part(index, 1.0, self.regularised)
        found, stored = [], self._stored()
        for first in range(0, len(index), self.at_once):
            part = slice(first, first + self.at_once)
            for rows in stored:
                rows.part = part
            own = index[part]
            found.append(self._part(own, len(own) / len(index), self.regularised and not first))
        for rows in stored:
            rows.part = None
        return torch.stack([loss for loss, _ in found]).sum(), torch.cat([output.detach() for _, output in found])

    def _part(self, index: Tensor, share: float, regularised: bool) -> tuple[Tensor, Tensor]:
        self.scales.make()
        output = self.stage(self._mixed(index))
        loss = self.objective.cost(output.float(), index)
        loss = loss if share == 1 else loss * share
        pull_back(loss + self._regulariser() if regularised else loss, self._leaves)
        return loss.detach(), output

    def _learned(self) -> Iterator[nn.Parameter]:
        for optimiser in self.optimisers:
            yield from (parameter for group in optimiser.param_groups for parameter in group["params"])
        for module in self.roundings:
            yield from module.parameters() if isinstance(module, SignGradient) else ()

    def _watch(self, iteration: int, index: Tensor, output: Tensor) -> None:
        """Keep Σ|ẑ - z|² and Σ|z|² of a minibatch now and then, where they are: fetching them would wait for a GPU."""
        schedule = self.schedule
        if iteration * _CURVE_POINTS % schedule.ceiling < _CURVE_POINTS or iteration == schedule.end - 1:
            z = self.objective.context.z[index].to(output.device)
            d = (output - z).flatten()
            self.watched.append((iteration, (torch.dot(d, d), torch.dot(z.flatten(), z.flatten()))))

    def _mixed(self, index: Tensor) -> Tensor:
        """Block inputs with a share of their rows in full precision (QDrop)."""
        if not self._mixes:
            return self.q_in[index]
        if of(self.device).fuses:
            from fimaq_deploy.calibration.fused.rows import mixed

            return mixed(self.q_in.source(index), self.fp_in.source(index), self.settings.qdrop)
        quantized = self.q_in[index]
        keep = rows_kept(quantized, self.settings.qdrop)
        return torch.lerp(quantized, self.fp_in[index], keep.to(quantized.dtype))

    def _regulariser(self) -> Tensor:
        return self.settings.rounding_weight * torch.stack([s.regulariser(self.exponent) for s in self.soft]).sum()


def reconstruct_block(
    stages: Sequence[Stage],
    position: int,
    boundary: tuple[Tensor, Tensor],
    z: Tensor,
    logits: Tensor,
    settings: Reconstruction,
    store: ActivationStore,
    divergence: Divergence = kl_divergence,
    limits: Limits = Limits(),
) -> BlockRecord:
    """Learn one stage.

    boundary: its full-precision and quantized inputs; z: its full-precision outputs; divergence: of two outputs of the
    chain.
    """
    started, at_once = time.perf_counter(), limits.at_once
    stage = stages[position]
    device = place_of(stage.module)
    enable_quantization(stage.module, True)
    sample = boundary[1][:RECORDED_IMAGES]
    before = error_of_passes(stage.module, sample, z, settings.batch_size, at_once)
    after, iterations, stopped = before, 0, CEILING
    watched: list[tuple[int, tuple[Tensor, Tensor]]] = []
    if settings.iterations_a_block:
        last = position == len(stages) - 1
        suffix, features = answer_of(stages[position + 1 :], stage.tap), features_of(stages[position + 1 :])
        fp_in, q_in, z_rows, references = (store.rows(each, device) for each in (*boundary, z, logits))
        recordable = getattr(divergence, "recordable", True)
        far = parallel.current().size > 1 or any(each.ahead for each in (q_in, z_rows, references))
        near = recordable and not far
        pull = partial(limits.gradients.at, position) if near and limits.gradients and is_host(device) else None
        reads = z_rows, references, suffix, features, settings, store, divergence
        pulled, depth = max(1, at_once // len(stages)), len(stages) - position
        context = BlockContext(*reads, pulled, near, limits.warm, depth, pull)
        objective = (HeadDivergence if last else OBJECTIVES[settings.loss])(context)
        learner = BlockLearner(stage.module, objective, (fp_in, q_in), settings, at_once, recordable)
        stopped = learner.learn()
        watched, iterations = learner.watched, learner.schedule.iteration
        objective.release()
        after = error_of_passes(stage.module, sample, z, settings.batch_size, at_once)
    first, last_loss, *sums = torch.stack([before, after, *chain(*(powers for _, powers in watched))]).tolist()
    errors = (d / max(z, 1e-20) for d, z in zip(sums[::2], sums[1::2], strict=True))
    curve = tuple((iteration, error) for (iteration, _), error in zip(watched, errors, strict=True))
    return BlockRecord(stage.name, first, last_loss, iterations, time.perf_counter() - started, curve, stopped)
