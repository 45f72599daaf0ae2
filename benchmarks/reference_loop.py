"""The published procedure, written straightforwardly: what `reconstruction.py` compares this package with.

FIMA-Q (CVPR 2025, arXiv 2506.11543), block after block:

1. run the whole full-precision model over all images to collect the block's inputs and outputs, and the whole model,
   quantized so far, to collect its quantized inputs;
2. k times, evenly spaced over the iterations, run the whole model over all images with only this block quantized,
   forward and backward, for the Fisher measurement;
3. a fixed number of iterations of AdaRound and learned activation scales against the DPLR loss, its inverse computed
   every time;
4. keep the rounding.

The grids, the quantizers and the initial scales are this package's, so that both ways end in a model that an engine
executes; what differs is how the learning is organised, and that it has the published hyper-parameters. Not in it:
the published scale per token, which no engine executes. Nothing here is meant to be fast.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers import rounding
from fimaq_deploy.calibration.quantizers.layers import (
    activation_quantizers,
    enable_quantization,
    freeze,
    quantized_layers,
)
from fimaq_deploy.calibration.quantizers.rounding import AdaRound
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites, resolve_rewrites
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.recipe import Recipe, Reconstruction
from fimaq_deploy.target import find_target


def published(recipe: Recipe, iterations: int, rank: int) -> Recipe:
    """The released hyper-parameters on this recipe's bits and rewrites."""
    paper = Recipe.load("fimaq-paper")
    settings = {**paper.reconstruction.model_dump(), "iterations": iterations, "rank": rank}
    return recipe.replace(reconstruction=settings, scale_search=paper.scale_search.model_dump())


@torch.no_grad()
def reconstruct_plainly(
    model: nn.Module, images: Tensor, recipe: Recipe, target: str, seed: int
) -> tuple[nn.Module, dict[str, float]]:
    """The quantized model, frozen, and the seconds that each block took."""
    original = copy.deepcopy(model).eval()
    apply_rewrites(original, images[: recipe.scale_search.images], resolve_rewrites(model, recipe.exact_rewrites), seed)
    plan = make_plan(original, recipe, find_target(target), attention_tokens(original, images[:1]))
    twin = quantized_copy(original, plan)
    teacher, student = stages_of(original), stages_of(twin)
    seconds = {}
    for position, stage in enumerate(student):
        torch.manual_seed(seed * 1009 + position)
        started = time.perf_counter()
        reconstruct_one(teacher, student, position, images, recipe)
        seconds[stage.name] = time.perf_counter() - started
    return twin.eval(), seconds


def reconstruct_one(
    teacher: Sequence[Stage], student: Sequence[Stage], position: int, images: Tensor, recipe: Recipe
) -> None:
    """One block, with two passes of the whole model before it and k while it learns."""
    settings, search, module = recipe.reconstruction, recipe.scale_search, student[position].module
    if not any(quantized_layers(module)):
        return  # a head left in floats: the published procedure learns neither biases nor norms
    fp_in, fp_out = collect(teacher, position, images, settings.batch_size)
    q_in, _ = collect(student, position, images, settings.batch_size)
    search_stage(module, q_in[: search.images].split(settings.batch_size), search.candidates)
    enable_quantization(module, True)
    attached = [rounding.attach(layer.weight_quantizer, "adaround") for _, layer in quantized_layers(module)]
    softs = [one for one in attached if isinstance(one, rounding.AdaRound)]
    scales = [g for _, q in activation_quantizers(module) for g in q.learn(settings.qdrop, settings.scale_lr)]
    weight_optimiser = torch.optim.Adam([soft.logits for soft in softs], lr=settings.weight_lr)
    scale_optimiser = torch.optim.Adam(scales)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(scale_optimiser, settings.iterations_a_block)
    gradients: list[Tensor] = []
    deviations: list[Tensor] = []
    starts = [1.0, 1.0]
    for iteration in range(settings.iterations_a_block):
        if position < len(student) - 1 and iteration % max(settings.iterations_a_block // settings.rank, 1) == 0:
            g, d = measure(teacher, module, position, images, settings)
            gradients.append(g)
            deviations.append(d)
            starts = [float(part) for part in dplr(module(q_in[:64]) - fp_out[:64], gradients, deviations)]
        index = torch.randperm(len(images))[: settings.batch_size]
        with torch.enable_grad():
            keep = torch.rand_like(q_in[index]) < settings.qdrop
            output = module(torch.where(keep, fp_in[index], q_in[index]))
            if position == len(student) - 1:
                loss = divergence(output, fp_out[index], settings.temperature)
            else:
                low_rank, diagonal = dplr(output - fp_out[index], gradients, deviations)
                loss = low_rank / starts[0] + diagonal / starts[1]
            loss = loss + regulariser(softs, iteration, settings)
            loss.backward()
        for optimiser in (weight_optimiser, scale_optimiser):
            optimiser.step()
            optimiser.zero_grad()
        schedule.step()
    settle(module)


def collect(stages: Sequence[Stage], position: int, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """A block's inputs and outputs, from a pass of the whole model."""
    inputs, outputs = [], []
    for x in images.split(batch_size):
        for number, stage in enumerate(stages):
            if number == position:
                inputs.append(x)
            x = stage.module(x)
            if number == position:
                outputs.append(x)
    return torch.cat(inputs), torch.cat(outputs)


def measure(
    teacher: Sequence[Stage], module: nn.Module, position: int, images: Tensor, settings: Reconstruction
) -> tuple[Tensor, Tensor]:
    """Batch means of |g| and |d|, from passes of the whole model with only this block quantized."""
    g_sum = d_sum = torch.zeros(())
    for batch in images.split(settings.batch_size):
        x = batch
        for stage in teacher[:position]:
            x = stage.module(x)
        z = teacher[position].module(x)
        leaf = module(x).requires_grad_()
        logits, current = z, leaf
        with torch.enable_grad():
            for stage in teacher[position + 1 :]:
                logits, current = stage.module(logits), stage.module(current)
            loss = divergence(current, logits.detach(), settings.temperature) * len(batch)
        (g,) = torch.autograd.grad(loss, leaf)
        g_sum, d_sum = g_sum + g.flatten(1).abs().sum(0), d_sum + (leaf.detach() - z).flatten(1).abs().sum(0)
    return g_sum / len(images), d_sum / len(images)


def dplr(difference: Tensor, gradients: Sequence[Tensor], deviations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The low-rank and the diagonal part as the paper has them."""
    d, g_rows, d_rows = difference.flatten(1), torch.stack(list(gradients)), torch.stack(list(deviations))
    a = d.abs() @ g_rows.t()
    inverse = torch.linalg.pinv(d_rows @ d_rows.t(), hermitian=True, rtol=1e-5)
    return ((a @ inverse) * a).sum(1).mean(), (d.square() * gradients[-1]).sum(1).mean()


def divergence(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """KL between the class probabilities at a temperature, mean over the batch."""
    log_q, log_p = (logits / temperature).log_softmax(1), (reference / temperature).log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def regulariser(softs: Sequence[AdaRound], iteration: int, settings: Reconstruction) -> Tensor | float:
    """Pushes the roundings to a decision, its exponent falling from 20 to 2 after the warm-up."""
    start = settings.warm_up * settings.iterations_a_block
    if iteration < start:
        return 0.0
    exponent = 2 + 18 * (1 - (iteration - start) / (settings.iterations_a_block - start))
    return settings.rounding_weight * sum(soft.regulariser(exponent) for soft in softs)


def settle(module: nn.Module) -> None:
    """Keep what was learned, and compute with it from now on."""
    for _, quantizer in activation_quantizers(module):
        quantizer.settle()
    for _, layer in quantized_layers(module):
        rounding.harden(layer.weight_quantizer)
    freeze(module)
