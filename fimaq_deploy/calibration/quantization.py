"""From a trained model and some images to a frozen quantized model: the whole PyTorch stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.backbone import encoder_inputs
from fimaq_deploy.calibration.budget import images_in_a_pass
from fimaq_deploy.calibration.checkpoints import Checkpoints
from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.findings.sensitivity import Sensitivity, measure_sensitivity
from fimaq_deploy.calibration.findings.usage import grid_use
from fimaq_deploy.calibration.fused.trial import try_kernels
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.arithmetic import exact_arithmetic
from fimaq_deploy.calibration.learning.batches import run_batches
from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.calibration.prepare import prepare
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.calibration.quantizers.layers import strip
from fimaq_deploy.calibration.rest import Rest, Whole, find_divergence
from fimaq_deploy.calibration.rewrites.apply import resolve_rewrites
from fimaq_deploy.calibration.state import fingerprint
from fimaq_deploy.calibration.trials import measured_rewrites
from fimaq_deploy.calibration.walk import Progress, Walk
from fimaq_deploy.data.intake import Images, as_source, reads_of
from fimaq_deploy.data.source import BATCH_SIZE, ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.inside import Inside, find_backbone, needs_search
from fimaq_deploy.recipe import AUTO, Recipe
from fimaq_deploy.target import combine, find_target, since

_AT_ONCE = 8  # images on the way to an encoder inside of a model


@torch.no_grad()
def quantize(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    target: str | Sequence[str] = "onnxruntime-cpu",
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    memory_bytes: int | None = None,
    sensitivity: int = 0,
    backbone: str | None = None,
    divergence: str | Whole | None = None,
    sm: int | None = None,
    accept: Callable[[Plan], None] | None = None,
) -> QuantizedModel:
    """Quantize a model of a family that we know (`models.families`), or the encoder of one inside of somebody's model.

    The model passed in is not modified. Of a detector, a segmenter or anything else with an encoder inside, the encoder
    is what is returned; `QuantizedModel.inside` puts it in its place.

    1. copy it, merge adapters, apply the recipe's exact rewrites (chosen by trials where it says `auto`), and plan
       every layer;
    2. prove that the copy, still in full precision, computes what the model computes;
    3. walk the chain of blocks: search scales, learn, freeze; then tune all blocks together where the recipe says so,
       which some do only for an encoder inside of a model (`tuning.only_inside`);
    4. look at what came out: how grids are filled, what each layer costs.

    Where torch.distributed is initialised, all its processes have to call this alike, with the same images: each learns
    from its share of them, and all return the same model (`calibration.parallel`). Only the first one reads `resume`.

    images: calibration images in any form that `data.intake` knows: arrays, batches, a DataLoader, a folder; at most
        `recipe.reconstruction.images` of them are used.
    target: what has to execute the result; several names mean rules that all of them satisfy.
    device: where to compute; the model's own device if None.
    resume: a folder that keeps every finished block, so that an interrupted call continues where it stopped.
    memory_bytes: what boundary activations may take in memory before they go to memory-mapped files.
    sensitivity: how many images to measure on what each block and layer costs; a pass over them for every layer.
    backbone: the module of the model that is, or holds, the encoder, as `named_modules` has it; None: the model itself,
        or the one encoder that is inside of it. `images` are the whole model's; it learns from what the encoder gets.
    divergence: what an error of the encoder costs, as a function of what the whole model answers in full precision and
        of what it answers now, or package.module:function, to a tensor of one number; its gradient comes back through
        the rest of the model. "detections" compares classes and boxes. None: the error of everything that the encoder
        hands out, over its own power. Joint tuning follows that in any case.
    sm: the oldest GPU generation that has to execute the result, such as 89, where it is known: attention that does not
        fuse in integers is in 8-bit floats if all of them have those.
    accept: is shown what is planned for every layer before anything is learned, and may refuse it with a `UserError`.

    Raises:
        UserError: the images or the model are not usable, the target cannot execute the recipe, or the copy would not
            compute what the model does.
    """
    rules = since(combine(map(find_target, [target] if isinstance(target, str) else target)), sm)
    device = torch.device(device) if device is not None else next(model.parameters()).device
    inside = find_backbone(model, backbone) if backbone is not None or needs_search(model) else Inside("", model)
    recipe = recipe.resolved(on_host=is_host(device), inside=inside.encoder is not model)
    group, count = parallel.current(), recipe.reconstruction.images
    source = as_source(images, reads_of(model), keep_labels=False, limit=count, seed=seed)
    budget = {} if memory_bytes is None else {"budget_bytes": memory_bytes}
    with ActivationStore(device=device, **budget) as store, of(device).own_randomness(), exact_arithmetic(device):
        try_kernels(device)
        taken = shown = _take(source, count, store)
        judge, whole_model = find_divergence(divergence), model
        if inside.encoder is not model:
            taken = store.collect(encoder_inputs(model, inside, taken.split(_AT_ONCE)), len(taken))
            model = inside.encoder
        choice = None
        if recipe.rewrites == AUTO:
            recipe, choice = measured_rewrites(
                model, taken, recipe, rules, device, seed, store.budget_bytes, progress, resume
            )
        recipe = recipe.model_copy(update={"rewrites": resolve_rewrites(model, recipe.exact_rewrites)})
        made = prepare(model, taken, recipe, rules, device, seed, store.budget_bytes)
        if accept is not None:
            accept(made.plan)
        guided = [] if divergence is None else [getattr(divergence, "__qualname__", str(divergence))]
        checkpoints = Checkpoints(
            resume if group.leads else None,
            lambda: fingerprint(model, taken, recipe.model_dump(), rules.name, seed, made.plan.as_dict(), *guided),
        )
        outputs = made.outputs
        teacher = outputs.joining(made.teacher)
        size = images_in_a_pass(taken, device, recipe.reconstruction.batch_size, made.at_once)
        logits = store.collect(run_batches(teacher, taken, size), len(taken))
        _check_finite(logits)
        guide = None
        if judge is not None:
            guide = Rest(whole_model, inside, shown, made.teacher(taken[:1].to(device)), judge)
        recipe_here = parallel.divided(recipe, group.size)
        walk = Walk(made.copy, recipe_here, seed, taken, logits, store, outputs, made.at_once, progress, guide)
        history = list(walk.blocks(checkpoints))
        if recipe.tuning.joint_iterations:
            history.append(walk.tuned(made.teacher, made.tuned_at_once))
        measured: Sequence[Sensitivity] = ()
        if sensitivity and group.leads:
            seen = taken[:sensitivity].to(device)
            whole, chain = outputs.joining(made.copy), outputs.stages(stages_of(made.copy))
            second = outputs.second_order
            measured = measure_sensitivity(whole, chain, seen, progress, second, made.at_once, made.copy)
        looked = taken[: recipe.reconstruction.batch_size]
        grids = grid_use(made.copy, looked.split(min(len(looked), made.at_once)))
    strip(made.copy)
    return QuantizedModel(
        made.copy,
        plan=made.plan,
        recipe=recipe,
        target=rules,
        seed=seed,
        tokens=made.tokens,
        input_shape=(taken.shape[1], taken.shape[2], taken.shape[3]),
        merged=made.merged,
        place=inside.name,
        choice=choice,
        history=history,
        grids=grids,
        sensitivity=measured,
    )


def _take(images: ImageSource, limit: int, store: ActivationStore) -> Tensor:
    """Of the first `limit` images, those that this process learns from."""
    group, count = parallel.current(), 0
    taken: list[Tensor] = []
    for batch in (each.images for each in images.batches(min(BATCH_SIZE, limit))):
        kept = batch[: limit - count]
        taken.append(kept[(group.rank - count) % group.size :: group.size])
        count += len(kept)
        if count == limit:
            break
    if count < group.size:
        raise UserError(f"{count} calibration images for {group.size} processes: expected at least one for each")
    return store.collect(taken, sum(map(len, taken)))


def _check_finite(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise UserError("the full-precision model answers NaN or infinite logits: check its weights and the images")
