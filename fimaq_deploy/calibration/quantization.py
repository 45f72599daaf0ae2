"""From a trained model and some images to a frozen quantized model: the whole PyTorch stage."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.checkpoints import Checkpoints, resumed
from fimaq_deploy.calibration.findings.sensitivity import Sensitivity, measure_sensitivity
from fimaq_deploy.calibration.findings.usage import GridUse, grid_use
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.arithmetic import flushed_denormals
from fimaq_deploy.calibration.learning.batches import relative_error, run_batches
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord, reconstruct_block
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.learning.tune import tune
from fimaq_deploy.calibration.network.plan import left_alone
from fimaq_deploy.calibration.network.quantized_copy import attention_tokens, quantized_twin
from fimaq_deploy.calibration.network.stages import Stage, check_structure, stages_of
from fimaq_deploy.calibration.quantizers.layers import freeze, strip
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites, resolve_rewrites
from fimaq_deploy.calibration.state import fingerprint, frozen_state, load_frozen_state, read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target, combine, find_target

# Called as progress(steps done, all steps, name of the step that starts).
Progress = Callable[[int, int, str], None]


class QuantizedModel(nn.Module):
    """A frozen quantized model: images (N, C, H, W) to logits (N, classes), on the grid that the target executes.

    model: the timm module, its layers replaced by frozen twins. history: how each block was reconstructed.
    grids: how its tensors fill their grids. sensitivity: what each block and layer costs, where that was asked for.
    tokens: the sequence length of each attention module. left_alone: what stays in high precision, with the reason.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, target: Target, seed: int, tokens: dict[str, int]) -> None:
        super().__init__()
        self.model = model
        self.recipe, self.target, self.seed, self.tokens = recipe, target, seed, tokens
        self.left_alone: dict[str, str] = {}
        self.history: list[BlockRecord] = []
        self.grids: list[GridUse] = []
        self.sensitivity: list[Sensitivity] = []

    @property
    def stages(self) -> list[Stage]:
        """The chain of blocks, sharing the model's modules."""
        return stages_of(self.model)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def save(self, path: str | Path) -> None:
        """Write integers, scales and the high-precision parameters as safetensors. Equal models give equal bytes."""
        metadata = {
            "recipe": self.recipe.model_dump(mode="json"),
            "targets": self.target.name.split("+"),
            "seed": self.seed,
            "tokens": self.tokens,
        }
        write_state(Path(path), frozen_state(self.model), metadata)


def load_quantized(path: str | Path, model: nn.Module) -> QuantizedModel:
    """Read what `QuantizedModel.save` wrote; `model` is the full-precision model that it was made from.

    Raises:
        UserError: the file is missing, damaged, or belongs to another model.
    """
    state, metadata = read_state(Path(path))
    recipe, target = Recipe().replace(**metadata["recipe"]), combine(map(find_target, metadata["targets"]))
    check_structure(model)
    rewritten = copy.deepcopy(model).eval()
    # The rewritten structure depends on neither images nor seed; the numbers come from the file.
    apply_rewrites(rewritten, torch.zeros(1, *image_shape(model)), recipe.rewrites, 0)
    try:
        twin = quantized_twin(rewritten, recipe, target, metadata["tokens"])
    except KeyError as error:
        raise UserError(f"quantized weights {path} belong to another model: they know no module {error}") from None
    load_frozen_state(twin, state)
    strip(twin)
    quantized = QuantizedModel(twin, recipe, target, metadata["seed"], metadata["tokens"])
    quantized.left_alone = left_alone(rewritten, recipe, target, metadata["tokens"])
    return quantized.eval()


@torch.no_grad()
def quantize(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    recipe: Recipe,
    target: str | Sequence[str] = "onnxruntime-cpu",
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    memory_bytes: int | None = None,
    sensitivity: int = 0,
) -> QuantizedModel:
    """Quantize a timm VisionTransformer or SwinTransformer. The model passed in is not modified.

    Where torch.distributed is initialised, all its processes have to call this alike, with the same images: each learns
    from its share of them, and all return the same model (`calibration.parallel`). Only the first one reads `resume`.

    images: calibration images, float32 (N, C, H, W), or an iterable of such batches; at most
        `recipe.reconstruction.images` of them are used.
    target: what has to execute the result; several names mean rules that all of them satisfy.
    device: where to compute; the model's own device if None.
    resume: a folder that keeps every finished block, so that an interrupted call continues where it stopped.
    memory_bytes: what boundary activations may take in memory before they go to memory-mapped files.
    sensitivity: how many images to measure on what each block and layer costs; a pass over them for every layer.

    Raises:
        UserError: the images or the model are not usable, or the target cannot execute the recipe.
    """
    rules = combine(map(find_target, [target] if isinstance(target, str) else target))
    check_structure(model)
    device = torch.device(device) if device is not None else next(model.parameters()).device
    group = parallel.current()
    budget = {} if memory_bytes is None else {"budget_bytes": memory_bytes}
    with ActivationStore(device=device, **budget) as store, torch.random.fork_rng(), flushed_denormals():
        taken = _take(images, recipe.reconstruction.images, store)
        _check_size(model, taken)
        recipe = recipe.model_copy(update={"rewrites": resolve_rewrites(model, recipe.rewrites)})
        rewritten = copy.deepcopy(model).to(device).eval()
        apply_rewrites(rewritten, taken[: recipe.scale_search.images], recipe.rewrites, seed)
        group.broadcast([*rewritten.parameters(), *rewritten.buffers()])
        tokens = attention_tokens(rewritten, taken[:1].to(device))
        twin = quantized_twin(rewritten, recipe, rules, tokens)
        quantized = QuantizedModel(twin, parallel.divided(recipe, group.size), rules, seed, tokens)
        quantized.left_alone = left_alone(rewritten, recipe, rules, tokens)
        checkpoints = Checkpoints(
            resume if group.leads else None, lambda: fingerprint(model, taken, recipe.model_dump(), rules.name, seed)
        )
        logits = store.collect(run_batches(rewritten, taken, recipe.reconstruction.batch_size), len(taken))
        _check_finite(logits)
        quantized.history = list(_reconstruct(quantized, taken, logits, store, checkpoints, progress))
        if recipe.tuning.iterations:
            quantized.history.append(_tune(quantized, rewritten, taken, logits, progress))
        quantized.recipe = recipe
        quantized.grids = grid_use(twin, [taken[: recipe.reconstruction.batch_size]])
        if sensitivity and group.leads:
            seen = taken[:sensitivity].to(device)
            quantized.sensitivity = measure_sensitivity(twin, quantized.stages, seen, progress)
    strip(twin)
    return quantized.eval()


def _take(images: Tensor | Iterable[Tensor], limit: int, store: ActivationStore) -> Tensor:
    """Of the first `limit` images, checked, those that this process learns from."""
    group, taken, count = parallel.current(), [], 0
    for batch in [images] if isinstance(images, Tensor) else images:
        _check_batch(batch, taken)
        kept = batch[: limit - count]
        taken.append(kept[(group.rank - count) % group.size :: group.size])
        count += len(kept)
        if count == limit:
            break
    if not count:
        raise UserError("no calibration images: expected at least one of shape (C, H, W)")
    if count < group.size:
        raise UserError(f"{count} calibration images for {group.size} processes: expected at least one for each")
    return store.collect(taken, sum(map(len, taken)))


def _check_batch(batch: Tensor, earlier: list[Tensor]) -> None:
    if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
        kind = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
        raise UserError(f"calibration images are {kind}: expected a float32 tensor (N, C, H, W) or batches of them")
    if not len(batch):
        raise UserError("a batch of calibration images has size 0: expected at least one image")
    if earlier and batch.shape[1:] != earlier[0].shape[1:]:
        raise UserError(
            f"calibration images of two sizes, {tuple(earlier[0].shape[1:])} and {tuple(batch.shape[1:])}: "
            "resize them to the model's input size"
        )
    if not batch.isfinite().all():
        raise UserError("calibration images hold NaN or infinite values: check the preprocessing")


def _check_size(model: nn.Module, images: Tensor) -> None:
    size, expected = tuple(images.shape[1:]), image_shape(model)
    if size != expected and not getattr(model, "dynamic_img_size", False):
        raise UserError(f"calibration images are {size}, the model expects {expected}: resize them")


def _seed(seed: int, position: int) -> None:
    """Each block has its own random stream, so that resuming changes nothing, and so has each process."""
    torch.manual_seed(seed * 1009 + position + parallel.current().rank * 1_000_003)


def _reconstruct(
    quantized: QuantizedModel,
    images: Tensor,
    logits: Tensor,
    store: ActivationStore,
    checkpoints: Checkpoints,
    progress: Progress | None,
) -> Iterator[BlockRecord]:
    """Walk the chain once: every stage is searched, learned and frozen, then both boundaries move past it."""
    stages, settings = quantized.stages, quantized.recipe.reconstruction
    steps = len(stages) + bool(quantized.recipe.tuning.iterations)
    fp_in = q_in = images
    for position, stage in enumerate(stages):
        _seed(quantized.seed, position)
        if progress:
            progress(position, steps, stage.name)
        z = store.collect(run_batches(stage.module, fp_in, settings.batch_size), len(images))
        record = resumed(checkpoints, position, stage.module)
        if record is None:
            record = _learn(quantized, stages, position, (fp_in, q_in), z, logits, store)
            checkpoints.save(position, stage.module, record)
        yield record
        q_out = store.collect(run_batches(stage.module, q_in, settings.batch_size), len(images))
        if position:
            store.release(fp_in, q_in)
        fp_in, q_in = z, q_out


def _tune(
    quantized: QuantizedModel, teacher: nn.Module, images: Tensor, logits: Tensor, progress: Progress | None
) -> BlockRecord:
    """Joint tuning, recorded like a block whose output is the logits."""
    stages, settings = quantized.stages, quantized.recipe.tuning
    _seed(quantized.seed, len(stages))
    if progress:
        progress(len(stages), len(stages) + 1, "joint tuning")
    started = time.perf_counter()
    before = relative_error(run_batches(quantized.model, images, settings.batch_size), logits)
    tune(stages, stages_of(teacher), images, settings)
    after = relative_error(run_batches(quantized.model, images, settings.batch_size), logits)
    return BlockRecord("joint tuning", before, after, settings.iterations, time.perf_counter() - started)


def _learn(
    quantized: QuantizedModel,
    stages: Sequence[Stage],
    position: int,
    boundary: tuple[Tensor, Tensor],
    z: Tensor,
    logits: Tensor,
    store: ActivationStore,
) -> BlockRecord:
    search, settings = quantized.recipe.scale_search, quantized.recipe.reconstruction
    module = stages[position].module
    device = next(module.parameters()).device
    sample = boundary[1][: search.images].to(device)
    group = parallel.current()
    search_stage(module, sample.split(settings.batch_size), search.candidates)
    group.broadcast(list(module.parameters()))
    record = reconstruct_block(stages, position, boundary, z, logits, settings, store)
    group.broadcast(list(module.parameters()))
    freeze(module)
    return record


def _check_finite(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise UserError("the full-precision model answers NaN or infinite logits: check its weights and the images")
