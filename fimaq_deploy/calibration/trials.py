"""What a model loses with other rewrites: quantized without learning on a half of the images, compared on the other."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.budget import images_in_a_pass
from fimaq_deploy.calibration.checkpoints import Checkpoints
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.batches import run_batches
from fimaq_deploy.calibration.network.chain import chain_of
from fimaq_deploy.calibration.network.fidelity import merge_adapters
from fimaq_deploy.calibration.prepare import prepare
from fimaq_deploy.calibration.rewrites.apply import resolve_rewrites
from fimaq_deploy.calibration.rewrites.choice import FEWEST_IMAGES, Choice, Losses, choose, kept
from fimaq_deploy.calibration.state import fingerprint
from fimaq_deploy.calibration.walk import Progress, Walk
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.recipe import AUTO, Recipe, Rewrites
from fimaq_deploy.target import Target

IMAGES = 64  # on which rewrites are compared
_CANDIDATES = 16  # ranges that a scale is searched among
_FILE = "rewrites.json"


@dataclass(frozen=True)
class Trials:
    """What all trials have in common. images: float32 (N, C, H, W), the halves one behind the other."""

    model: nn.Module
    images: Tensor
    recipe: Recipe
    target: Target
    device: torch.device
    seed: int
    stored_bytes: int

    def losses(self, settings: tuple[str, ...]) -> Tensor:
        """The divergence of each image's outputs, float64 (N,), scales being those of the half that it is not in."""
        recipe, middle = self.recipe.with_settings(settings), (len(self.images) + 1) // 2
        halves = self.images[:middle], self.images[middle:]
        return torch.cat([self._half(recipe, halves[1], halves[0]), self._half(recipe, halves[0], halves[1])])

    def _half(self, recipe: Recipe, seen: Tensor, unseen: Tensor) -> Tensor:
        with ActivationStore(device=self.device, budget_bytes=self.stored_bytes) as store:
            made = prepare(self.model, seen, recipe, self.target, self.device, self.seed, self.stored_bytes)
            outputs, teacher = made.outputs, made.outputs.joining(made.teacher)
            sizes = [
                images_in_a_pass(half, self.device, recipe.reconstruction.batch_size, made.at_once)
                for half in (seen, unseen)
            ]
            exact = store.collect(run_batches(teacher, seen, sizes[0]), len(seen))
            walk = Walk(made.copy, recipe, self.seed, seen, exact, store, outputs, made.at_once, None)
            for _ in walk.blocks(Checkpoints(None, str)):
                pass
            answers = [run_batches(one, unseen, sizes[1]) for one in (outputs.joining(made.copy), teacher)]
            rows = [
                row for two in zip(*answers, strict=True) for row in zip(*(one.split(1) for one in two), strict=True)
            ]
            return torch.stack([outputs.divergence(one, other, 1.0) for one, other in rows]).double().cpu()


def measured_rewrites(
    model: nn.Module,
    images: Tensor,
    recipe: Recipe,
    target: Target,
    device: torch.device,
    seed: int,
    stored_bytes: int,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> tuple[Recipe, Choice]:
    """A recipe of `rewrites: auto` with the switches that it comes to, and what they rest on.

    images: calibration images, of which the first few are used. resume: a folder that keeps what was measured.

    Raises:
        UserError: there are several processes, or too few images.
    """
    if parallel.current().size > 1:
        raise UserError(
            f"rewrites: {AUTO} is measured in one process: quantize in one, and learn from its recipe.yaml in several"
        )
    few = images[: min(IMAGES, recipe.scale_search.images)]
    if len(few) < FEWEST_IMAGES:
        raise UserError(
            f"rewrites: {AUTO} compares halves of at least {FEWEST_IMAGES} calibration images, got {len(few)}: "
            "give more, or name the switches"
        )
    start = recipe.model_copy(update={"rewrites": resolve_rewrites(model, Rewrites())})
    trials = Trials(model, few, _unlearned(start), target, device, seed, stored_bytes)
    settings = candidates(start, can_rotate=_can_rotate(model, few))
    path = None if resume is None else Path(resume) / _FILE
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    identity = "" if path is None else fingerprint(model, few, recipe.model_dump(), target.name, seed)
    measure = kept(_told(trials.losses, 2 * len(settings), progress), path, identity)
    choice = choose(settings, measure)
    return start.with_settings(choice.taken), choice


def candidates(start: Recipe, *, can_rotate: bool) -> list[str]:
    """The settings to try: every switch the other way round."""
    switches = {name: on for name, on in start.exact_rewrites.model_dump().items() if can_rotate or name != "rotation"}
    other = [f"rewrites.{name}={'false' if on else 'true'}" for name, on in switches.items()]
    softmax = "values" if start.scale_search.softmax == "products" else "products"
    return [*other, f"scale_search.softmax={softmax}"]


def _can_rotate(model: nn.Module, images: Tensor) -> bool:
    """Whether what is quantized in the model's place has a stream that takes a rotation."""
    whole = copy.deepcopy(model)
    merge_adapters(whole)
    chain = chain_of(whole, images)
    return not isinstance(family_of(chain).stream(chain), str)


def _unlearned(recipe: Recipe) -> Recipe:
    search = recipe.scale_search
    return recipe.replace(
        scale_search={"candidates": min(search.candidates, _CANDIDATES)},
        reconstruction={"iterations": 0},
        tuning={"iterations": 0},
    )


def _told(losses: Losses, most: int, progress: Progress | None) -> Losses:
    """The same, and each trial is said before it begins. most: how many there may be."""
    count = iter(range(most))

    def telling(settings: tuple[str, ...]) -> Tensor:
        if progress:
            progress(next(count), most, f"trying {' '.join(settings) or 'the usual rewrites'}")
        return losses(settings)

    return telling
