"""What is asked of a build: checked, with every default resolved, and the command line that asks for it again.

This is the one place where a build's arguments are judged, whoever gave them: the command line, a program or a sweep.
What only a file can tell (images, a checkpoint) is judged by whoever reads it, and whether a threshold means something
for what the model returns by `pipeline.measures`.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from fimaq_deploy.calibration.rest import Whole as Divergence
from fimaq_deploy.calibration.rest import find_divergence
from fimaq_deploy.data.intake import Images
from fimaq_deploy.engines.runtimes import every_runtime, find_runtime
from fimaq_deploy.errors import UserError, non_negative, shown, within
from fimaq_deploy.export.opset import DEFAULT_OPSET, check_opset, check_storage
from fimaq_deploy.measure.own import OwnFunction, name_of
from fimaq_deploy.measure.tasks import TaskChoice, parse_tasks, task_text
from fimaq_deploy.models.devices import find_device
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.names import is_onnx, require_known
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.models.preprocessing import image_size as sides
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import WeightStorage

LARGEST_SEED = 2**63 - 1
OLDEST_SM, LATEST_SM = 75, 999  # Turing, and what nobody has built yet
REPLAYED = 8  # images that a build keeps with their outputs
_FREE = ("layers",)  # recipe fields whose keys are the user's own: given as a whole


AUTO = "auto"
_AUTO_LEARNS_AS = "w4a8"


@dataclass(frozen=True)
class Budget:
    """What `--recipe auto` has to keep; with neither it is --max-drop.

    megabytes: of model.onnx. speed: how many times as fast as in 16 bits matrix products have to be,
        by the types that they are computed in.
    """

    megabytes: float | None = None
    speed: float | None = None


@dataclass(frozen=True)
class Request:
    """The arguments of `fimaq_deploy.build`, resolved. Paths are kept as the user wrote them. Made by `of`.

    images, eval_images: a path as text, or whatever else `data.intake` takes.
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
    ) -> Request:
        """Arguments as of `fimaq_deploy.build`.

        Raises:
            UserError: one of them cannot be meant.
        """
        _require_name(model)
        if is_onnx(model):
            _require_of_onnx(weights, sensitivity, backbone, recipe)
        return cls(
            model=model,
            weights=_path("--weights", weights) or "",
            images=_images("--images", images),
            eval_images=_images("--eval-images", eval_images),
            recipe=_recipe(recipe, settings),
            targets=resolve_targets(targets),
            out=Path(_path("--out", out) or default_out(model)),
            device=_device(device),
            seed=_whole("--seed", seed, LARGEST_SEED),
            max_drop=None if max_drop is None else non_negative("--max-drop", max_drop),
            sensitivity=_whole("--sensitivity", sensitivity, LARGEST_SEED),
            task=parse_tasks(task),
            evaluate=_function(evaluate),
            min_agreement=None if min_agreement is None else within("--min-agreement", min_agreement, 0, 100),
            min_cosine=None if min_cosine is None else within("--min-cosine", min_cosine, -1, 1),
            class_map=_path("--class-map", class_map),
            eval_coco=_path("--eval-coco", eval_coco),
            eval_maps=_path("--eval-maps", eval_maps),
            sizes=Sizes(sides(image_size), None if in_chans is None else _channels(in_chans)),
            preprocessing=preprocessing or Preprocessing(),
            opset=None if opset is None else check_opset(_whole("--opset", opset, 99)),
            weight_storage=check_storage(weight_storage, opset or DEFAULT_OPSET),
            sm=None if sm is None else _generation(sm),
            replay=_whole("--replay", replay, 1_000_000),
            embed_preprocessing=bool(embed_preprocessing),
            budget=_budget(recipe, size_budget, speed_budget, max_drop),
            backbone=_place(backbone),
            divergence=_judge(divergence),
        )

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers of the quantized model."""
        keys = ("model", "weights", "targets", "device", "seed")
        reads = {**asdict(self.sizes), **asdict(self.preprocessing)}
        told = {**reads, "sm": self.sm, "backbone": self.backbone, "divergence": self.divergence_name}
        asked = {name: value for name, value in told.items() if value is not None}
        decided = {"images": images_text(self.images), **{key: getattr(self, key) for key in keys}}
        if self.budget is not None:
            decided |= {"budget": asdict(self.budget), "max_drop": self.max_drop, "evaluate": self.evaluate_name}
        return {**decided, "recipe": self.recipe.model_dump(mode="json"), **asked}

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
            "--size-budget": _number(None if self.budget is None else self.budget.megabytes),
            "--speed-budget": _number(None if self.budget is None else self.budget.speed),
            "--opset": None if self.opset is None else str(self.opset),
            "--weight-storage": self.weight_storage if self._asks_for_storage() else None,
            "--sm": None if self.sm is None else str(self.sm),
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
    preset = _preset(recipe.name)
    return list(_differences(preset.model_dump(mode="json"), recipe.model_dump(mode="json")))


def default_out(model: str) -> str:
    """`build/MODEL`; a `package.module:factory` is named by its factory, an ONNX file by its own name."""
    if is_onnx(model):
        return str(Path("build") / Path(model).stem)
    return str(Path("build") / model.rpartition(":")[2].replace("/", "_"))


def resolve_targets(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The targets asked for, or all that can be compiled or run on this machine.

    Raises:
        UserError: an unknown target, or none.
    """
    if asked is None:
        return tuple(runtime.name for runtime in every_runtime() if None in runtime.availability())
    names = [asked] if isinstance(asked, str) else asked
    if not isinstance(names, Sequence) or not names:
        raise UserError(f"--target {shown(asked)}: expected names of targets; without any it is all that work here")
    return tuple(dict.fromkeys(_target(name) for name in names))


def _target(name: object) -> str:
    if not isinstance(name, str):
        raise UserError(f"--target {shown(name)}: expected the name of a target")
    return find_runtime(name).name


def _require_name(model: object) -> None:
    if not isinstance(model, str):
        raise UserError(
            f"--model is a {type(model).__name__}: expected a name, or package.module:factory for a module of your own"
        )
    if not is_onnx(model):
        require_known(model)


def _require_of_onnx(weights: object, sensitivity: object, backbone: object, recipe: object) -> None:
    """What asks for a module."""
    if weights != "pretrained":
        raise UserError(f"--weights {shown(weights)}: an ONNX file brings its own; leave it out")
    if sensitivity:
        raise UserError("--sensitivity needs the PyTorch model: an ONNX file has no blocks to spare one by one")
    if backbone is not None:
        raise UserError("--backbone needs the PyTorch model: an ONNX file is quantized as a whole")
    if recipe == AUTO:
        raise UserError(f"--recipe {AUTO} needs the PyTorch model: name a recipe for an ONNX file")


def _path(option: str, given: object) -> str | None:
    if given is None:
        return None
    path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise UserError(f"{option} is a {type(given).__name__}: expected a path")
    if not path.strip() or "\0" in path:
        raise UserError(f"{option} {shown(repr(path))}: expected a path")
    return path


def _judge(divergence: object) -> str | Divergence | None:
    if divergence is None or callable(divergence) or isinstance(divergence, str):
        find_divergence(divergence)
        return divergence
    raise UserError(f"--divergence is a {type(divergence).__name__}: expected a function, or package.module:function")


def _place(backbone: object) -> str | None:
    if backbone is None:
        return None
    if not isinstance(backbone, str) or not backbone.strip():
        raise UserError(f"--backbone {shown(backbone)}: expected the name of a module of the model")
    return backbone


def _images(option: str, given: object) -> Any:
    """A path as the user wrote it; what a program holds is judged by whoever reads it (`data.intake`)."""
    if isinstance(given, (str, os.PathLike)):
        return _path(option, given)
    held = any(hasattr(type(given), name) for name in ("__iter__", "__getitem__"))
    if given is not None and (isinstance(given, (bytes, bytearray)) or not held):
        raise UserError(f"{option} is a {type(given).__name__}: expected a path, an array or an iterable of batches")
    return given


def images_text(images: Images | None) -> str | None:
    """Images as a command line has them: a path, or what stands for something that only a program holds."""
    if images is None or isinstance(images, str):
        return images
    shape = tuple(getattr(images, "shape", ()))
    return f"<{type(images).__name__}{f' {shape}' if shape else ''} of a program>"


def _recipe(recipe: object, settings: Sequence[str]) -> Recipe:
    if not isinstance(recipe, Recipe):
        recipe = _preset(_path("--recipe", recipe) or "")
    return recipe.with_settings(settings) if settings else recipe


def _preset(name: str) -> Recipe:
    """A recipe by name or path; `auto` learns as W4A8 does, and has its formats from a budget."""
    return Recipe.load(_AUTO_LEARNS_AS).replace(name=AUTO) if name == AUTO else Recipe.load(name)


def _budget(recipe: object, megabytes: float | None, speed: float | None, max_drop: float | None) -> Budget | None:
    """What `--recipe auto` has to keep."""
    if recipe != AUTO:
        for option, given in (("--size-budget", megabytes), ("--speed-budget", speed)):
            if given is not None:
                raise UserError(f"{option} chooses formats for --recipe {AUTO}, and no other: leave one of them out")
        return None
    if megabytes is not None and speed is not None:
        raise UserError("--size-budget and --speed-budget: give one of them, and --max-drop to check what comes of it")
    if megabytes is None and speed is None and max_drop is None:
        raise UserError(f"--recipe {AUTO} needs a budget: --max-drop, --size-budget or --speed-budget")
    return Budget(
        None if megabytes is None else within("--size-budget", megabytes, 0, 1e6),
        None if speed is None else within("--speed-budget", speed, 1, 2),
    )


def _number(given: float | None) -> str | None:
    return None if given is None else f"{given:g}"


def _function(evaluate: object) -> str | OwnFunction | None:
    if evaluate is None or callable(evaluate) or isinstance(evaluate, str):
        return evaluate
    raise UserError(f"--evaluate is a {type(evaluate).__name__}: expected a function, or package.module:function")


def _device(device: object) -> str:
    """A device that is here; by default the first GPU, else the CPU."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, (str, torch.device)):
        raise UserError(f"--device {shown(device)}: expected a name such as cpu or cuda")
    find_device(device)
    return str(device)


def _channels(given: object) -> int:
    number = _whole("--in-chans", given, 1024)
    if not number:
        raise UserError("--in-chans 0: expected at least 1")
    return number


def _generation(given: object) -> int:
    number = _whole("--sm", given, LATEST_SM)
    if number < OLDEST_SM:
        raise UserError(f"--sm {number}: expected a GPU generation such as 89, which is compute capability 8.9")
    return number


def _whole(option: str, given: object, most: int) -> int:
    number = -1 if isinstance(given, bool) or not isinstance(given, Integral) else int(given)
    if not 0 <= number <= most:
        raise UserError(f"{option} {shown(given)}: expected a whole number from 0 to {most}")
    return number


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in new.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" in _FREE:
            yield from () if value == old[key] else (f"{prefix}{key}={json.dumps(value)}",)
        elif isinstance(value, Mapping):
            yield from _differences(old[key], value, f"{prefix}{key}.")
        elif value != old[key]:
            yield f"{prefix}{key}={'null' if value is None else value}"
