"""What a sweep builds: the strict form of its YAML file, and the cells that follow from it.

    models: [vit_shapes, {name: swin_t, images: calibration/, eval_images: validation/}]
    recipes: [w8a8, {recipe: w4a4, name: w4a4-long, set: [reconstruction.iterations=500]}]
    targets: [onnxruntime-cpu, [onnxruntime-cpu, tensorrt-rtx]]

Every model is built with every recipe for every entry of `targets`; an entry that lists several targets is one build
for all of them. Paths are relative to the working directory, as on the command line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import parse_yaml, read_text
from fimaq_deploy.models.names import is_onnx, require_known
from fimaq_deploy.models.preprocessing import Preprocessing, numbers
from fimaq_deploy.pipeline.arguments import REPLAYED, named_recipe, number_text, resolve_targets
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.recipe import AUTO, Recipe
from fimaq_deploy.target import WeightStorage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


WHERE = {"cpus", "gpus"}  # fields that decide where a cell is built, and not what
FILES = ("opset", "weight_storage", "sm", "replay", "embed_preprocessing")


class ModelEntry(_Strict):
    """A model and its images; the fields are the options of `build`."""

    name: str
    weights: str = "pretrained"
    images: str | None = None
    eval_images: str | None = None
    task: str | list[str] | None = Field(default=None, description="What the outputs are, where that is not found.")
    evaluate: str | None = Field(default=None, description="A figure of your own, as package.module:function.")
    class_map: str | None = Field(default=None, description="Classes of the folders in eval_images.")
    bank: str | None = Field(default=None, description="Labelled images that embeddings are judged by.")
    bank_maps: str | None = Field(default=None, description="Maps of classes of the images in bank.")
    eval_coco: str | None = Field(default=None, description="COCO annotations of the images in eval_images.")
    eval_maps: str | None = Field(default=None, description="A folder with a map of classes for each of eval_images.")
    backbone: str | None = Field(default=None, description="The encoder inside, where there are several.")
    divergence: str | None = Field(default=None, description="detections, classes or package.module:function.")
    cpus: float | None = Field(default=None, ge=0, description="Of a task on a cluster, where not the sweep's.")
    gpus: float | None = Field(default=None, ge=0, description="The same of GPUs.")
    image_size: int | str | list[int] | None = Field(default=None, description="Of the images: 384, 256x192.")
    in_chans: int | None = None
    mean: float | str | list[float] | None = Field(default=None, description="Of pixels in [0, 1].")
    std: float | str | list[float] | None = Field(default=None, description="Of pixels in [0, 1].")
    crop: float | None = Field(default=None, description="Share of the shorter side that the crop keeps.")
    crop_mode: str | None = None
    interpolation: str | None = None
    bit_depth: int | None = None

    @property
    def title(self) -> str:
        """What cells are called by."""
        return self.name.removesuffix(".onnx") if is_onnx(self.name) else self.name.rpartition(":")[2]

    def preprocessing(self) -> Preprocessing:
        """Raises:
        UserError: a value that no image can be prepared with.
        """
        mean, std = (
            numbers(f"--{name}", [given] if isinstance(given, float) else given)
            for name, given in (("mean", self.mean), ("std", self.std))
        )
        return Preprocessing(mean, std, self.interpolation, self.crop, self.crop_mode, self.bit_depth)


@dataclass(frozen=True)
class Asked:
    """What `build` is given beside a recipe. settings: those of the recipe `auto`, whose formats a budget chooses."""

    size_budget: float | None = None
    speed_budget: float | None = None
    gpu: str | None = None
    settings: tuple[str, ...] | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Asked:
        """From `asdict` by way of JSON, which has no tuples."""
        settings = fields["settings"]
        return cls(**{**fields, "settings": None if settings is None else tuple(settings)})

    @property
    def title(self) -> str:
        """As in "0.25MB" or "1.5x-L4"; empty where nothing is asked."""
        size, speed = number_text(self.size_budget), number_text(self.speed_budget)
        told = (size and f"{size}MB", speed and f"{speed}x", self.gpu)
        return "-".join(one for one in told if one)

    def options(self, recipe: Recipe) -> dict[str, Any]:
        """What `Request.of` takes; `recipe` is the loaded one, which for `auto` it makes itself."""
        chosen = {"recipe": recipe} if self.settings is None else {"recipe": AUTO, "settings": self.settings}
        return {**chosen, "size_budget": self.size_budget, "speed_budget": self.speed_budget, "gpu": self.gpu}


class RecipeEntry(_Strict):
    """A preset or a YAML file, with single fields of it replaced; or `auto` with its budget."""

    recipe: str
    name: str | None = Field(default=None, description="What the cell is called; default: the recipe's own name.")
    settings: list[str] = Field(default=[], alias="set")
    size_budget: float | None = Field(default=None, allow_inf_nan=False, description="Megabytes of model.onnx.")
    speed_budget: float | None = Field(default=None, allow_inf_nan=False, description="Times as fast as in floats.")
    gpu: str | None = Field(default=None, description="The card whose roofline prices formats, for engines of GPUs.")

    def load(self, common: list[str]) -> Recipe:
        return named_recipe(self.recipe).with_settings([*common, *self.settings])

    def asked(self, common: list[str]) -> Asked:
        settings = (*common, *self.settings) if self.recipe == AUTO else None
        return Asked(self.size_budget, self.speed_budget, self.gpu, settings)

    @property
    def title(self) -> str:
        """With the budget in it: several of `auto` differ in nothing else."""
        return self.name or "-".join(filter(None, (Path(self.recipe).stem, self.asked([]).title)))


def _named(key: str) -> BeforeValidator:
    """A bare string stands for a mapping with one field."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class Cell:
    """One build of a sweep. name: unique in it, and the name of its folder. title: of the recipe."""

    name: str
    model: ModelEntry
    title: str
    recipe: Recipe
    targets: tuple[str, ...]
    asked: Asked = Asked()

    def identity(self, *more: object) -> str:
        """A hash of all that decides what is built; `more` are facts that every cell shares."""
        facts = {
            **asdict(self),
            "model": self.model.model_dump(exclude=WHERE),
            "recipe": self.recipe.model_dump(mode="json"),
        }
        if self.asked == Asked():  # what was built before there were budgets is still the same
            del facts["asked"]
        return hashlib.sha256(json.dumps([facts, *more], sort_keys=True, default=str).encode()).hexdigest()

    def request(self, plan: Plan, folder: Path) -> Request:
        """What is asked of a build.

        Raises:
            UserError: a field of the plan, or of the cell, cannot be meant.
        """
        try:
            return Request.of(
                self.model.name,
                weights=self.model.weights,
                images=self.model.images,
                eval_images=self.model.eval_images,
                bank=self.model.bank,
                bank_maps=self.model.bank_maps,
                targets=self.targets,
                out=folder / self.name,
                device=plan.device,
                seed=plan.seed,
                max_drop=plan.max_drop,
                sensitivity=plan.sensitivity,
                task=self.model.task,
                evaluate=self.model.evaluate,
                class_map=self.model.class_map,
                eval_coco=self.model.eval_coco,
                eval_maps=self.model.eval_maps,
                backbone=self.model.backbone,
                divergence=self.model.divergence,
                image_size=self.model.image_size,
                in_chans=self.model.in_chans,
                preprocessing=self.model.preprocessing(),
                min_agreement=plan.min_agreement,
                min_cosine=plan.min_cosine,
                **self.asked.options(self.recipe),
                **plan.files(),
            )
        except UserError as error:
            raise UserError(f"build {self.name} of the sweep: {error}") from None


class Plan(_Strict):
    """A sweep's file."""

    models: list[Annotated[ModelEntry, _named("name")]] = Field(min_length=1)
    recipes: list[Annotated[RecipeEntry, _named("recipe")]] = Field(min_length=1)
    targets: list[Annotated[list[str], BeforeValidator(_listed)]] | None = Field(
        default=None, min_length=1, description="Default: one entry with whatever works on this machine."
    )
    settings: list[str] = Field(
        default=[], alias="set", description="Recipe fields of every cell, as in tuning.iterations=0."
    )
    out: str | None = Field(
        default=None, min_length=1, description="The folder of the sweep; default: build/NAME-OF-THE-FILE."
    )
    device: str | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    max_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    min_agreement: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)
    sensitivity: int = Field(default=0, ge=0, le=10_000_000)
    opset: int | None = Field(default=None, description="Of the ONNX files.")
    weight_storage: WeightStorage = Field(default="auto", description="Of weights of at most four bits.")
    sm: int | None = Field(default=None, description="The oldest GPU generation that engines are for.")
    replay: int = Field(default=REPLAYED, description="Evaluation images to keep in each folder with their outputs.")
    embed_preprocessing: bool = Field(default=False, description="Also write files that prepare images themselves.")
    cpus: float = Field(default=1, ge=0, description="Of a task on a cluster (--on).")
    gpus: float = Field(default=0, ge=0, description="Of a task on a cluster; parts of one are shared.")
    retries: int = Field(default=2, ge=0, le=1000, description="Of a task whose process or machine ended.")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a file.

        Raises:
            UserError: it cannot be read, is not YAML, or a field is missing, unknown or out of range.
        """
        file = Path(path)
        fields = _read(file)
        try:
            plan = cls.model_validate(fields)
        except ValidationError as error:
            raise UserError(f"sweep {file}: {_first_problem(error)}") from None
        return plan if plan.out else plan.model_copy(update={"out": str(Path("build") / file.stem)})

    def files(self) -> dict[str, Any]:
        """What decides what files a build writes, as `Request.of` takes it."""
        return {name: getattr(self, name) for name in FILES}

    def cells(self) -> list[Cell]:
        """Every build, models first.

        Raises:
            UserError: an unknown model, recipe, recipe field or target, or two cells of one name.
        """
        for entry in self.models:
            if not is_onnx(entry.name):
                require_known(entry.name)
            elif not Path(entry.name).is_file():
                raise UserError(f"no ONNX file {shown(entry.name)}: expected one, or the name of a model")
        found = list(self._cells())
        names = [cell.name for cell in found]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"two builds of the sweep are called {name}: give one of the recipes another `name`")
        return found

    def _cells(self) -> Iterator[Cell]:
        recipes = [(entry, entry.load(self.settings), entry.asked(self.settings)) for entry in self.recipes]
        groups: Sequence[list[str] | None] = self.targets or [None]
        targets = [resolve_targets(entry) for entry in groups]
        for model in self.models:
            for entry, recipe, asked in recipes:
                for group in targets:
                    words = (model.title, entry.title, *(("+".join(group),) if len(targets) > 1 else ()))
                    yield Cell(re.sub(r"[^\w.+-]", "_", "-".join(words)), model, entry.title, recipe, group, asked)


def _read(file: Path) -> Any:
    fields = parse_yaml(read_text(file, "sweep", wanted="the YAML file of a sweep"), f"sweep {file}")
    if not isinstance(fields, dict):
        raise UserError(f"sweep {file} holds {type(fields).__name__}: expected fields such as 'models: [vit_digits]'")
    return fields


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = shown(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = sorted(info.alias or name for name, info in _around(problem["loc"]).model_fields.items())
        close = get_close_matches(str(problem["loc"][-1]), known, 1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; {_expected(known)}"
        return f"unknown field '{field}'{hint}"
    if problem["type"] == "missing":
        return f"field '{field}' is missing: {_expected(['models', 'recipes'])}"
    return f"field '{field}': {problem['msg'].lower()}, got {shown(problem['input'], quoted=True)}"


def _around(place: tuple[int | str, ...]) -> type[_Strict]:
    """What holds the field at a place."""
    entries: dict[int | str, type[_Strict]] = {"models": ModelEntry, "recipes": RecipeEntry}
    return entries.get(place[0], Plan) if len(place) > 1 else Plan


def _expected(names: list[str]) -> str:
    return f"expected {', '.join(names)}"
