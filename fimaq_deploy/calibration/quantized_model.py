"""A quantized model as a value: what `quantize` returns, and what a file of it holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity
from fimaq_deploy.calibration.findings.usage import GridUse
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord
from fimaq_deploy.calibration.network.fidelity import merge_adapters
from fimaq_deploy.calibration.network.plan import Plan, make_plan
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy, quantized_copy, stages_of
from fimaq_deploy.calibration.quantizers.layers import strip
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites
from fimaq_deploy.calibration.rewrites.choice import Choice
from fimaq_deploy.calibration.state import frozen_state, load_frozen_state, read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.models.inside import encoder_at, needs_search, spliced
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target, combine, find_target

FORMAT = 2  # of a file: 1, of 0.1.0, had no plan


class QuantizedModel(nn.Module):
    """A frozen quantized model: images (N, C, H, W) to what the original returns, on the grid that the target executes.

    model: the user's module, its layers replaced as `plan` says. recipe: with every choice made. target: what executes
    it. tokens: the sequence length of each attention. input_shape: (C, H, W) of the images. merged: layers whose
    adapters went into their weights, with their class. history: how each block was reconstructed. grids: how its
    tensors fill their grids. sensitivity: what each block and layer costs, where that was asked for. place: which
    module of somebody's model it is; empty where it is a model of its own. choice: what `rewrites: auto` measured.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        plan: Plan,
        recipe: Recipe,
        target: Target,
        seed: int,
        tokens: Mapping[str, int],
        input_shape: tuple[int, int, int],
        merged: Mapping[str, str] | None = None,
        history: Sequence[BlockRecord] = (),
        grids: Sequence[GridUse] = (),
        sensitivity: Sequence[Sensitivity] = (),
        place: str = "",
        choice: Choice | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.plan, self.recipe, self.target, self.seed = plan, recipe, target, seed
        self.tokens, self.input_shape, self.merged = dict(tokens), input_shape, dict(merged or {})
        self.place, self.choice = place, choice
        self.history, self.grids, self.sensitivity = tuple(history), tuple(grids), tuple(sensitivity)
        self.eval()

    @property
    def stages(self) -> list[Stage]:
        """The chain of blocks, sharing the model's modules."""
        return stages_of(self.model)

    @property
    def left_alone(self) -> dict[str, str]:
        """What stays in high precision, with the reason."""
        return self.plan.kept

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of it, as sentences."""
        merged = (f"{name} was merged into one layer: {what}" for name, what in self.merged.items())
        kernels = (self.target.kernel(form, operator) for form, operator in self.plan.float_products)
        needs = (f"made for {kernel.told}" for kernel in kernels if kernel is not None)
        return (*merged, *needs, *self.plan.notes())

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def inside(self, model: nn.Module) -> nn.Module:
        """A copy of the model that this encoder was taken from, in eval mode, with this in its place.

        All other numbers are shared with the model.

        Raises:
            UserError: it has no encoder at that place.
        """
        return spliced(model, encoder_at(model, self.place), self)

    def save(self, path: str | Path) -> None:
        """Write integers, scales and the high-precision parameters as safetensors. Equal models give equal bytes."""
        metadata = {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            "targets": self.target.name.split("+"),
            "seed": self.seed,
            "tokens": self.tokens,
            "plan": self.plan.as_dict(),
            "input_shape": self.input_shape,
            "merged": self.merged,
            **({"place": self.place} if self.place else {}),
        }
        write_state(Path(path), frozen_state(self.model), metadata)


def load_quantized(path: str | Path, model: nn.Module) -> QuantizedModel:
    """Read what `QuantizedModel.save` wrote; `model` is the full-precision model that it was made from.

    Of an encoder inside of somebody's model, that is the whole model or the encoder alone.

    The layers become what the saved plan says, whatever a target's rules are today. Files of 0.1.0 hold no plan: theirs
    is made from today's rules, and they are refused where those do not fit.

    Raises:
        UserError: the file is missing, damaged, of a newer version, or belongs to another model.
    """
    state, metadata = read_state(Path(path))
    saved = _Saved.of(path, metadata)
    if saved.place and needs_search(model):
        model = encoder_at(model, saved.place).encoder
    family_of(model).check(model)
    rewritten = copy.deepcopy(model).float().eval()
    merged = merge_adapters(rewritten)
    shape = saved.input_shape or image_shape(model)
    rewritten = family_of(rewritten).as_chain(rewritten, shape)
    # The rewritten structure depends on neither images nor seed; the numbers come from the file.
    apply_rewrites(rewritten, torch.zeros(1, *shape), saved.recipe.exact_rewrites, 0)
    try:
        explicit = explicit_copy(rewritten)
        plan = saved.plan or make_plan(explicit, saved.recipe, saved.target, saved.tokens)
        quantized = quantized_copy(explicit, plan)
    except KeyError as error:
        raise UserError(f"quantized weights {path} belong to another model: they know no module {error}") from None
    _load_state(path, quantized, state, saved)
    strip(quantized)
    return QuantizedModel(
        quantized,
        plan=plan,
        recipe=saved.recipe,
        target=saved.target,
        seed=saved.seed,
        tokens=saved.tokens,
        input_shape=shape,
        merged=merged,
        place=saved.place,
    )


def _load_state(path: str | Path, quantized: nn.Module, state: dict[str, Tensor], saved: _Saved) -> None:
    try:
        load_frozen_state(quantized, state)
    except UserError as error:
        if saved.plan is not None:
            raise
        raise UserError(
            f"{path} was written by 0.1.0 and does not fit today's rules ({error}): quantize again"
        ) from None


@dataclass(frozen=True)
class _Saved:
    """The metadata of a file. plan, input_shape: None in one of 0.1.0."""

    recipe: Recipe
    target: Target
    seed: int
    tokens: dict[str, int]
    plan: Plan | None
    input_shape: tuple[int, int, int] | None
    place: str = ""

    @classmethod
    def of(cls, path: str | Path, metadata: Mapping[str, Any]) -> _Saved:
        """Raises: UserError: not the metadata of a quantized model, or of a newer version."""
        version = metadata.get("format", 1)
        if not isinstance(version, int) or version > FORMAT:
            raise UserError(f"{path} was written by a newer version (format {version}): update fimaq-deploy")
        try:
            plan, shape = metadata.get("plan"), metadata.get("input_shape")
            return cls(
                recipe=Recipe().replace(**metadata["recipe"]),
                target=combine(map(find_target, metadata["targets"])),
                seed=int(metadata["seed"]),
                tokens={name: int(count) for name, count in metadata["tokens"].items()},
                plan=None if plan is None else Plan.from_dict(plan),
                input_shape=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
                place=str(metadata.get("place", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise UserError(
                f"{path} holds no quantized model: expected a file that `QuantizedModel.save` or a build wrote"
            ) from None
