"""What is asked of a build: checked, with every default resolved, and the command line that asks for it again.

This is the one place where a build's arguments are judged, whoever gave them: the command line, a program or a sweep.
What only a file can tell (images, a checkpoint) is judged by whoever reads it, and whether a threshold means something
for what the model returns by `pipeline.measures`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.rest import Whole as Divergence
from fimaq_deploy.data.intake import Images
from fimaq_deploy.errors import non_negative, within
from fimaq_deploy.export.opset import DEFAULT_OPSET, check_opset, check_storage, require_opset
from fimaq_deploy.measure.own import OwnFunction, name_of
from fimaq_deploy.measure.tasks import TaskChoice, parse_tasks, task_text
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.names import is_onnx
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.models.preprocessing import image_size as sides
from fimaq_deploy.pipeline.arguments import (
    LARGEST_SEED,
    REPLAYED,
    Budget,
    budget_of,
    channels,
    default_out,
    device_name,
    divergence_of,
    generation,
    gpu_of,
    images_of,
    images_text,
    module_name,
    named_recipe,
    number_text,
    own_function,
    path_text,
    recipe_of,
    require_bank,
    require_decided,
    require_name,
    require_of_onnx,
    resolve_targets,
    storage_for,
    whole_number,
)
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import WeightStorage

_FREE = ("layers",)  # recipe fields whose keys are the user's own: given as a whole


@dataclass(frozen=True)
class Request:
    """The arguments of `fimaq_deploy.build`, resolved. Paths are kept as the user wrote them. Made by `of`.

    images, eval_images, bank: a path as text, or whatever else `data.intake` takes.
    """

    model: str
    weights: str
    images: Images | None
    eval_images: Images | None
    recipe: Recipe
    targets: tuple[str, ...]
    out: Path
    device: str
    seed: int
    max_drop: float | None
    sensitivity: int = 0
    task: Mapping[str, str] = field(default_factory=dict)
    evaluate: str | OwnFunction | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    class_map: str | None = None
    eval_coco: str | None = None
    eval_maps: str | None = None
    bank: Images | None = None
    bank_maps: str | None = None
    sizes: Sizes = field(default_factory=Sizes)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    opset: int | None = None
    weight_storage: WeightStorage = "auto"
    sm: int | None = None
    replay: int = REPLAYED
    embed_preprocessing: bool = False
    budget: Budget | None = None
    backbone: str | None = None
    divergence: str | Divergence | None = None
    gpu: str | None = None

    @classmethod
    def of(
        cls,
        model: str,
        *,
        weights: str | Path = "pretrained",
        images: Images | None = None,
        eval_images: Images | None = None,
        recipe: Recipe | str | Path = "w8a8",
        settings: Sequence[str] = (),
        targets: str | Sequence[str] | None = None,
        out: str | Path | None = None,
        device: str | None = None,
        seed: int = 0,
        max_drop: float | None = None,
        sensitivity: int = 0,
        task: TaskChoice | Sequence[str] = None,
        evaluate: str | OwnFunction | None = None,
        min_agreement: float | None = None,
        min_cosine: float | None = None,
        class_map: str | Path | None = None,
        eval_coco: str | Path | None = None,
        eval_maps: str | Path | None = None,
        bank: Images | None = None,
        bank_maps: str | Path | None = None,
        image_size: str | int | Sequence[int] | None = None,
        in_chans: int | None = None,
        preprocessing: Preprocessing | None = None,
        opset: int | None = None,
        weight_storage: WeightStorage = "auto",
        sm: int | None = None,
        replay: int = REPLAYED,
        embed_preprocessing: bool = False,
        size_budget: float | None = None,
        speed_budget: float | None = None,
        backbone: str | None = None,
        divergence: str | Divergence | None = None,
        gpu: str | None = None,
    ) -> Request:
        """Arguments as of `fimaq_deploy.build`.

        Raises:
            UserError: one of them cannot be meant.
        """
        require_name(model)
        if is_onnx(model):
            require_of_onnx(weights, sensitivity, backbone, recipe)
        chosen, budget = recipe_of(recipe, settings), budget_of(recipe, size_budget, speed_budget, max_drop)
        require_bank(bank, bank_maps)
        require_decided(chosen, onnx=is_onnx(model), budget=budget is not None)
        where = resolve_targets(targets)
        oldest = None if sm is None else generation(sm, where)
        return cls(
            model=model,
            weights=path_text("--weights", weights) or "",
            images=images_of("--images", images),
            eval_images=images_of("--eval-images", eval_images),
            recipe=chosen,
            targets=where,
            out=Path(path_text("--out", out) or default_out(model)),
            device=device_name(device),
            seed=whole_number("--seed", seed, LARGEST_SEED),
            max_drop=None if max_drop is None else non_negative("--max-drop", max_drop),
            sensitivity=whole_number("--sensitivity", sensitivity, LARGEST_SEED),
            task=parse_tasks(task),
            evaluate=own_function(evaluate),
            min_agreement=None if min_agreement is None else within("--min-agreement", min_agreement, 0, 100),
            min_cosine=None if min_cosine is None else within("--min-cosine", min_cosine, -1, 1),
            class_map=path_text("--class-map", class_map),
            eval_coco=path_text("--eval-coco", eval_coco),
            eval_maps=path_text("--eval-maps", eval_maps),
            bank=images_of("--bank", bank),
            bank_maps=path_text("--bank-maps", bank_maps),
            sizes=Sizes(sides(image_size), None if in_chans is None else channels(in_chans)),
            preprocessing=preprocessing or Preprocessing(),
            opset=None if opset is None else check_opset(whole_number("--opset", opset, 99)),
            weight_storage=storage_for(weight_storage, opset or DEFAULT_OPSET, where, oldest),
            sm=oldest,
            replay=whole_number("--replay", replay, 1_000_000),
            embed_preprocessing=bool(embed_preprocessing),
            budget=budget,
            backbone=module_name(backbone),
            divergence=divergence_of(divergence),
            gpu=gpu_of(gpu, where, budget, oldest),
        )

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers of the quantized model."""
        keys = ("model", "weights", "targets", "device", "seed")
        reads = {**asdict(self.sizes), **asdict(self.preprocessing)}
        told = {**reads, "sm": self.sm, "gpu": self.gpu, "backbone": self.backbone, "divergence": self.divergence_name}
        asked = {name: value for name, value in told.items() if value is not None}
        decided = {"images": images_text(self.images), **{key: getattr(self, key) for key in keys}}
        if self.budget is not None:
            decided |= {"budget": asdict(self.budget), "max_drop": self.max_drop, "evaluate": self.evaluate_name}
        return {**decided, "recipe": self.recipe.model_dump(mode="json"), **asked}

    def accept(self, plan: Plan) -> None:
        """What can be refused of a plan before anything is learned.

        Raises:
            UserError: the opset that was asked for cannot say it.
        """
        require_opset(plan, self.opset)

    @property
    def is_onnx(self) -> bool:
        """Whether the model is a bare ONNX file."""
        return is_onnx(self.model)

    @property
    def evaluate_name(self) -> str | None:
        """The user's own function as the command line has it."""
        own = self.evaluate
        return own if own is None or isinstance(own, str) else f"{own.__module__}:{name_of(own)}"

    @property
    def divergence_name(self) -> str | None:
        """The same of a divergence."""
        own = self.divergence
        return own if own is None or isinstance(own, str) else f"{own.__module__}:{name_of(own)}"

    def _thresholds(self) -> Iterator[tuple[str, str]]:
        for name in ("max_drop", "min_agreement", "min_cosine"):
            value = getattr(self, name)
            if value is not None:
                yield name, f"{value:g}"

    def _reading(self) -> dict[str, str | None]:
        """How images are read, as the command line has it."""
        said, size = self.preprocessing, self.sizes.image_size
        return {
            "--class-map": self.class_map,
            "--eval-coco": self.eval_coco,
            "--eval-maps": self.eval_maps,
            "--bank": images_text(self.bank),
            "--bank-maps": self.bank_maps,
            "--image-size": f"{size[0]}x{size[1]}" if size else None,
            "--in-chans": None if self.sizes.in_chans is None else str(self.sizes.in_chans),
            "--mean": None if said.mean is None else ",".join(map(repr, said.mean)),
            "--std": None if said.std is None else ",".join(map(repr, said.std)),
            "--crop": None if said.crop_pct is None else repr(said.crop_pct),
            "--crop-mode": said.crop_mode,
            "--interpolation": said.interpolation,
            "--bit-depth": None if said.bit_depth is None else str(said.bit_depth),
        }

    def _asks_for_storage(self) -> bool:
        """Whether it is not what `auto` comes to."""
        return self.weight_storage != check_storage("auto", self.opset or DEFAULT_OPSET)

    def command(self) -> str:
        """The command line that does this again."""
        preset = self.budget is not None or self.recipe.name in Recipe.presets()
        options = {
            "--model": self.model,
            "--backbone": self.backbone,
            "--divergence": self.divergence_name,
            "--weights": None if self.is_onnx else self.weights,
            "--images": images_text(self.images),
            "--eval-images": images_text(self.eval_images),
            **self._reading(),
            "--recipe": self.recipe.name if preset else str(self.out / "recipe.yaml"),
            "--device": self.device,
            "--seed": str(self.seed),
            "--evaluate": self.evaluate_name,
            **{f"--{name.replace('_', '-')}": value for name, value in self._thresholds()},
            "--size-budget": number_text(None if self.budget is None else self.budget.megabytes),
            "--speed-budget": number_text(None if self.budget is None else self.budget.speed),
            "--opset": None if self.opset is None else str(self.opset),
            "--weight-storage": self.weight_storage if self._asks_for_storage() else None,
            "--sm": None if self.sm is None else str(self.sm),
            "--gpu": self.gpu,
            "--sensitivity": str(self.sensitivity) if self.sensitivity else None,
            "--replay": None if self.replay == REPLAYED else str(self.replay),
            "--out": str(self.out),
        }
        words = [word for key, value in options.items() if value is not None for word in (key, value)]
        words += [word for name in self.targets for word in ("--target", name)]
        words += [word for name, kind in self.task.items() for word in ("--task", task_text(name, kind))]
        words += ["--embed-preprocessing"] if self.embed_preprocessing else []
        if preset:
            words += [word for setting in changed_settings(self.recipe) for word in ("--set", setting)]
        return shlex.join(["fimaq-deploy", "build", *words, "--overwrite"])


def changed_settings(recipe: Recipe) -> list[str]:
    """How a recipe differs from the preset of its name, as `key=value` settings."""
    base = named_recipe(recipe.name)
    return list(_differences(base.model_dump(mode="json"), recipe.model_dump(mode="json")))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in new.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" in _FREE:
            yield from () if value == old[key] else (f"{prefix}{key}={json.dumps(value)}",)
        elif isinstance(value, Mapping):
            yield from _differences(old[key], value, f"{prefix}{key}.")
        elif value != old[key]:
            yield f"{prefix}{key}={'null' if value is None else value}"
