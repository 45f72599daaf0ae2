"""What is done to a model before it learns, and the proof that it still computes the same."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.budget import Work, fitting
from fimaq_deploy.calibration.learning.activations import DEFAULT_BUDGET_BYTES
from fimaq_deploy.calibration.learning.outputs import Outputs
from fimaq_deploy.calibration.network.attentions import attention_inputs
from fimaq_deploy.calibration.network.chain import chain_of
from fimaq_deploy.calibration.network.fidelity import merge_adapters, require_same
from fimaq_deploy.calibration.network.plan import Plan, make_plan
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy, quantized_copy
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites
from fimaq_deploy.models.families import family_of
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target

COMPARED_IMAGES = 4  # that the copy and the original run on


@dataclass(frozen=True)
class Prepared:
    """A model before learning.

    teacher: rewritten, in full precision. copy: the same with quantized layers. outputs: what both return. at_once:
    images that are computed together at most. tuned_at_once: whose graph through the whole chain is in memory together.
    """

    teacher: nn.Module
    copy: nn.Module
    plan: Plan
    tokens: dict[str, int]
    outputs: Outputs
    at_once: int
    tuned_at_once: int
    merged: dict[str, str]


def prepare(
    model: nn.Module,
    images: Tensor,
    recipe: Recipe,
    target: Target,
    device: torch.device,
    seed: int,
    stored_bytes: int = DEFAULT_BUDGET_BYTES,
) -> Prepared:
    """Everything that is done to a model before it learns, and the proof that it still computes the same.

    stored_bytes: what boundary activations may take in memory.

    Raises:
        UserError: the model is not understood, would not compute the same, or cannot learn in the memory that is free.
    """
    reference = copy.deepcopy(model).to(device).float().eval()
    original = copy.deepcopy(reference)
    merged = merge_adapters(original)
    original = chain_of(original, images)
    explicit = explicit_copy(original)
    seen = attention_inputs(explicit, images[:1].to(device))
    tokens = {name: each.tokens for name, each in seen.items()}
    plan = make_plan(explicit, recipe, target, tokens)
    work = Work.of(explicit, seen, images.shape[1:])
    at_once = fitting(work, recipe, len(images), stored_bytes, device)
    sample = images[: min(COMPARED_IMAGES, at_once)].to(device)
    require_same(reference, quantized_copy(explicit, plan), sample, family_of(reference).original(reference))
    outputs = Outputs.of(explicit(sample), family_of(original).classes(original))
    teacher = original
    apply_rewrites(teacher, images[: recipe.scale_search.images], recipe.exact_rewrites, seed)
    parallel.current().broadcast([*teacher.parameters(), *teacher.buffers()])
    quantized = quantized_copy(teacher, plan)
    return Prepared(teacher, quantized, plan, tokens, outputs, at_once, min(at_once, work.tuned), merged)
