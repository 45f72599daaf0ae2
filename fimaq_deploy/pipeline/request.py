"""What is asked of a build, with every default resolved, and the command line that asks for it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fimaq_deploy.engines.runtimes import every_runtime
from fimaq_deploy.measure.own import OwnFunction, name_of
from fimaq_deploy.measure.tasks import task_text
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import find_target


@dataclass(frozen=True)
class Request:
    """The fields of `fimaq_deploy.pipeline.builds.build`. Paths are kept as the user wrote them."""

    model: str
    weights: str
    images: str | None
    eval_images: str | None
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

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers of the quantized model."""
        keys = ("model", "weights", "images", "targets", "device", "seed")
        return {**{key: getattr(self, key) for key in keys}, "recipe": self.recipe.model_dump(mode="json")}

    @property
    def evaluate_name(self) -> str | None:
        """The user's own function as the command line has it."""
        own = self.evaluate
        return own if own is None or isinstance(own, str) else f"{own.__module__}:{name_of(own)}"

    def _thresholds(self) -> Iterator[tuple[str, str]]:
        for name in ("max_drop", "min_agreement", "min_cosine"):
            value = getattr(self, name)
            if value is not None:
                yield name, f"{value:g}"

    def command(self) -> str:
        """The command line that does this again."""
        preset = self.recipe.name in Recipe.presets()
        options = {
            "--model": self.model,
            "--weights": self.weights,
            "--images": self.images,
            "--eval-images": self.eval_images,
            "--recipe": self.recipe.name if preset else str(self.out / "recipe.yaml"),
            "--device": self.device,
            "--seed": str(self.seed),
            "--evaluate": self.evaluate_name,
            **{f"--{name.replace('_', '-')}": value for name, value in self._thresholds()},
            "--sensitivity": str(self.sensitivity) if self.sensitivity else None,
            "--out": str(self.out),
        }
        words = [word for key, value in options.items() if value is not None for word in (key, value)]
        words += [word for name in self.targets for word in ("--target", name)]
        words += [word for name, kind in self.task.items() for word in ("--task", task_text(name, kind))]
        if preset:
            words += [word for setting in changed_settings(self.recipe) for word in ("--set", setting)]
        return shlex.join(["fimaq-deploy", "build", *words, "--overwrite"])


def changed_settings(recipe: Recipe) -> list[str]:
    """How a recipe differs from the preset of its name, as `key=value` settings."""
    preset = Recipe.load(recipe.name)
    return list(_differences(preset.model_dump(mode="json"), recipe.model_dump(mode="json")))


def default_out(model: str) -> Path:
    """`build/MODEL`; a `package.module:factory` is named by its factory."""
    return Path("build") / model.rpartition(":")[2].replace("/", "_")


def resolve_targets(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The targets asked for, or all that can be compiled or run on this machine.

    Raises:
        UserError: an unknown target.
    """
    if not asked:
        return tuple(runtime.name for runtime in every_runtime() if None in runtime.availability())
    names = [asked] if isinstance(asked, str) else asked
    return tuple(dict.fromkeys(find_target(name).name for name in names))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in new.items():
        if isinstance(value, Mapping):
            yield from _differences(old[key], value, f"{prefix}{key}.")
        elif value != old[key]:
            yield f"{prefix}{key}={'null' if value is None else value}"
