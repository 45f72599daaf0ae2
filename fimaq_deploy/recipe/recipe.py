"""What to do with a model, as one strict value: bits, grids, rewrites and how reconstruction learns.

A recipe is a preset (`presets/*.yaml` beside this file), a YAML file of the user's, or either with single fields
replaced. Unknown fields are errors, and nothing a user wrote is silently changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import parse_yaml, read_text
from fimaq_deploy.recipe.grids import Activations, Attention, Edge, LayerOverride, Weights
from fimaq_deploy.recipe.reading import first_problem, merged_fields, parsed_setting
from fimaq_deploy.recipe.steps import EFFORTS, Reconstruction, Rewrites, ScaleSearch, Tuning
from fimaq_deploy.recipe.values import Name, Section
from fimaq_deploy.target import Format

PRESETS = Path(__file__).parent / "presets"
AUTO = "auto"


def _switches_or_auto(value: Any) -> Any:
    if value != AUTO and not isinstance(value, (Mapping, Rewrites)):
        raise PydanticCustomError("rewrites", "input should be auto or switches such as values=true")
    return value


class Recipe(Section):
    """Everything that decides the numbers of a quantized model, apart from the model, the images and the seed."""

    name: Name = "custom"
    format: Format = Field(
        default="int",
        description="Of the products with stored weights. int: integers of the bits below; fp8: E4M3 floats of 8 bits, "
        "weights per output channel and activations per tensor; nvfp4: E2M1 floats of 4 bits in blocks of 16, whose "
        "scales are E4M3.",
    )
    weights: Weights = Weights()
    activations: Activations = Activations()
    patch_embed: Edge = Edge(weight_bits=8, activation_bits=8)
    head: Edge = Edge(weight_bits=8, activation_bits=8)
    attention: Attention = Attention()
    rewrites: Annotated[Rewrites | Literal["auto"], BeforeValidator(_switches_or_auto)] = Field(
        default_factory=Rewrites,
        description="auto: each switch, and the other way to search scales of attention weights, is tried on "
        "calibration images without learning, and those that clearly lower the loss of the outputs are taken.",
    )
    scale_search: ScaleSearch = ScaleSearch()
    reconstruction: Reconstruction = Reconstruction()
    tuning: Tuning = Tuning()
    layers: dict[str, LayerOverride] = Field(
        default={},
        description="What is different for single layers and attentions, by patterns over their names in which * is "
        'anything: {"blocks.*.mlp.fc2": {activations: {bits: 8}}, head: {quantize: never}}. Later ones win.',
    )

    @property
    def exact_rewrites(self) -> Rewrites:
        """`rewrites`, which something has to have decided."""
        if isinstance(self.rewrites, str):
            raise ValueError(f"rewrites: {self.rewrites} is decided on images, by `quantize`")
        return self.rewrites

    @staticmethod
    def presets() -> list[str]:
        """The names of the recipes that ship with the package."""
        return sorted(path.stem for path in PRESETS.glob("*.yaml"))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A preset by name, or a YAML file by path.

        Raises:
            UserError: no such preset or file, not YAML, or a field that is unknown or out of range.
        """
        known = cls.presets()
        path = PRESETS / f"{name_or_path}.yaml" if str(name_or_path) in known else Path(name_or_path)
        if not os.path.exists(path):  # noqa: PTH110  # which answers for every name, also one too long to be one
            close = get_close_matches(str(name_or_path), known, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(
                f"no recipe '{shown(str(name_or_path))}': expected a YAML file or one of {', '.join(known)}{hint}"
            )
        fields = parse_yaml(read_text(path, "recipe", wanted="a YAML file"), f"recipe {path}")
        if not isinstance(fields, dict):
            raise UserError(
                f"recipe {path} holds {type(fields).__name__}, expected fields such as 'weights: {{bits: 4}}'"
            )
        return cls._validated({"name": path.stem, **fields}, f"recipe {path.name}")

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields replaced; a mapping changes only the fields that it names.

        Raises:
            UserError: a field is unknown or out of range.
        """
        return self._validated(merged_fields(self.model_dump(), changes), f"recipe {self.name}")

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """A copy changed by `key=value` settings such as `reconstruction.iterations=200`.

        Raises:
            UserError: a setting has no '=', or its field is unknown or out of range.
        """
        changes: dict[str, Any] = {}
        for setting in settings:
            changes = merged_fields(changes, parsed_setting(setting))
        return self.replace(**changes)

    def resolved(self, *, on_host: bool, inside: bool = False) -> Recipe:
        """With the effort, iterations and rates that are meant on a CPU, or on what is faster. A number stays as it is.

        inside: for an encoder inside of somebody's model.

        Joint tuning follows an effort that is named. Without one it stays quick everywhere: it is the slowest part of
        what learns on a GPU, and more of it was worth little where that was measured.
        """
        settings, tuning = self.reconstruction, self.tuning
        if tuning.iterations is None:
            meant = inside or not tuning.only_inside
            count = tuning.quick_iterations * EFFORTS.get(settings.effort, 1) if meant else 0
            tuning = tuning.model_copy(update={"iterations": count})
        if settings.iterations is None and settings.effort == "auto":
            settings = settings.model_copy(update={"effort": "quick" if on_host else "standard"})
        return self.model_copy(update={"reconstruction": settings.settled(), "tuning": tuning})

    def to_yaml(self) -> str:
        """The whole recipe, every field resolved, in YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def _validated(cls, fields: Mapping[str, Any], source: str) -> Recipe:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise UserError(f"{source}: {first_problem(error, cls)}") from None
