"""What to do with a model, as one strict value: bits, grids, rewrites and how reconstruction learns.

A recipe is a preset (`recipes/*.yaml` in this package), a YAML file of the user's, or either with single fields
replaced. Unknown fields are errors, and nothing a user wrote is silently changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import parse_yaml, read_text
from fimaq_deploy.target import Format

PRESETS = Path(__file__).parent / "recipes"
_DEEPEST_KEY = 20  # names of layers have dots too


def _no_truth(value: Any) -> Any:
    """YAML's true is not the number 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("text", "input should be text of one line")
    return value


WeightBits = Literal[2, 3, 4, 6, 8]
ActivationBits = Literal[3, 4, 6, 8, 16]
Loss = Literal["mse", "brecq", "diag", "low_rank", "dplr", "least_squares", "feature", "divergence"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
Rounding = Literal["nearest", "adaround", "straight_through", "sign_gradient"]
Effort = Literal["auto", "quick", "standard", "thorough"]
# Iterations of a block, as a multiple of a quick effort's.
EFFORTS: dict[Effort, int] = {"quick": 1, "standard": 5, "thorough": 20}
AUTO = "auto"
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
# Every number has an end: beyond these a recipe says something that nobody means, or that overflows on the way.
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_no_truth)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
NonNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False), BeforeValidator(_no_truth)]
Count = Annotated[int, Field(ge=1, le=10_000_000), BeforeValidator(_no_truth)]
Number = Annotated[int, Field(ge=0, le=10_000_000), BeforeValidator(_no_truth)]


def _switches_or_auto(value: Any) -> Any:
    if value != AUTO and not isinstance(value, (Mapping, Rewrites)):
        raise PydanticCustomError("rewrites", "input should be auto or switches such as values=true")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """Weight grid of every layer that has no field of its own."""

    bits: WeightBits = 8
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(
        default=None,
        description="None: one scale per output channel. A length: INT4 weight-only blocks of input channels; "
        "layers whose input width is no multiple of it keep one scale per output channel.",
    )


class Activations(_Strict):
    """Activation grid of every tensor that has no field of its own. 16 bits: left in high precision."""

    bits: ActivationBits = 8
    scheme: Literal["auto", "symmetric", "asymmetric"] = Field(
        default="auto",
        description="auto: asymmetric where the target executes it at these bits at no cost, else symmetric.",
    )


class Edge(_Strict):
    """The patch embedding and the classifier head; bits of None are the recipe's own."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: but for heads that gain nothing on a target; always; never: in high precision.",
    )
    weight_bits: WeightBits | None = None
    activation_bits: ActivationBits | None = None
    format: Format | None = Field(default=None, description="As the recipe's; None: the recipe's own.")


class Attention(_Strict):
    """The two matmuls inside attention."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: wherever the target is faster with INT8 attention; always; never: in high precision.",
    )
    softmax_bits: ActivationBits | None = Field(
        default=None,
        description="Bits of the attention weights; None: as activations, or more where only more bits fuse.",
    )
    format: Literal["auto", "int", "fp8"] = Field(
        default="auto",
        description="auto: as the recipe's format, and fp8 where integers do not fuse but fp8 does on every GPU that "
        "engines are for; int; fp8: 8-bit floats, whose attention fuses whatever the head size and the tokens.",
    )


class Rewrites(_Strict):
    """Exact rewrites of the full-precision model before anything is quantized. None: decided per model family."""

    norm: bool | None = Field(default=None, description="Fold LayerNorm channel scales into the Linear that follows.")
    heads: bool | None = Field(
        default=None, description="Balance q, k and v per head inside the qkv and output projections."
    )
    values: bool | None = Field(
        default=None,
        description="Move the mean of v into the output projection's bias, so that weight which attention loses in "
        "rounding costs less.",
    )
    rotation: bool | None = Field(
        default=None,
        description="ViT/DeiT: a Hadamard rotation of the residual stream. In a model without a head one product more, "
        "in floats, turns the answer back.",
    )


class ScaleSearch(_Strict):
    """Initial scales."""

    images: Count = 128
    candidates: Count = Field(
        default=64, description="Shrunken ranges to try; 1 takes the extremes as they are (max calibration)."
    )
    softmax: Literal["values", "products"] = Field(
        default="values",
        description="What the scale of attention weights is searched for: the least error of the weights themselves, "
        "or of what they make of v, to which the many small ones add up.",
    )


class Reconstruction(_Strict):
    """Block reconstruction. `iterations: 0` keeps the initial scales and nearest rounding."""

    effort: Effort = Field(
        default="auto",
        description="How long blocks learn, and joint tuning with them. standard: 5 times the iterations of quick; "
        "thorough: 20 times. auto: quick on a CPU; elsewhere standard for the blocks, quick for joint tuning.",
    )
    quick_iterations: Count = Field(default=100, description="Iterations a block of a quick effort.")
    iterations: Number | None = Field(
        default=None, description="Iterations a block, whatever the effort; None: as many as that says."
    )
    images: Count = 1024
    batch_size: Count = 32
    loss: Loss = "dplr"
    rounding: Rounding = "straight_through"
    weight_lr: Positive = Field(default=0.03, description="AdaRound: for its logits; else in steps of the weight grid.")
    scale_lr: Positive = Field(
        default=3e-3, description="Relative change of an activation scale a learning step makes."
    )
    weight_scale_lr: NonNegative = Field(
        default=1e-3, description="The same for weight scales; 0 keeps the searched ones."
    )
    other_lr: NonNegative = Field(default=1e-3, description="For biases and norms; 0 keeps them.")
    qdrop: Fraction = Field(
        default=0.25, description="Share of full-precision values mixed into inputs and activations."
    )
    patience: Number = Field(
        default=0,
        description="Windows of 16 iterations without an improvement of 1 % that end a block early; 0: never.",
    )
    precision: Precision = Field(
        default="auto", description="Of matrix products while learning; auto: TF32 on a GPU, float32 on a CPU."
    )
    rank: Count = Field(
        default=5, description="k: Fisher measurements a block, evenly spaced over its iterations (dplr)."
    )
    fisher_images: Count = Field(
        default=128,
        description="Images that a block's Fisher measurements take together, each at least a minibatch; every one of "
        "them runs all blocks after the current one.",
    )
    temperature: Temperature = Field(
        default=20.0, description="Of the class probabilities that Fisher measurements compare."
    )
    low_rank_weight: NonNegative = Field(default=1.0, description="p1: of the Fisher part with signs or rank.")
    diagonal_weight: NonNegative = Field(default=1.0, description="p2: of the diagonal or plain error part.")
    rounding_weight: NonNegative = Field(default=0.01, description="AdaRound's regulariser.")
    warm_up: Fraction = Field(default=0.2, description="Share of the iterations before AdaRound's regulariser starts.")

    @property
    def iterations_a_block(self) -> int:
        """As a number. `effort: auto` counts as quick until a recipe is resolved for a device."""
        if self.iterations is not None:
            return self.iterations
        return self.quick_iterations * EFFORTS.get(self.effort, 1)


class Tuning(_Strict):
    """Joint tuning of all blocks after their reconstruction. `iterations: 0` leaves it out."""

    quick_iterations: Count = Field(default=300, description="Iterations of a quick `reconstruction.effort`.")
    iterations: Number | None = Field(
        default=None, description="Iterations, whatever the effort; None: as many as that says."
    )
    batch_size: Count = 32
    weight_lr: Positive = Field(default=0.01, description="Steps of the weight grid a learning step moves a weight by.")
    scale_lr: Positive = Field(default=1e-3, description="Relative change of a scale a learning step makes.")
    other_lr: Positive = Field(default=3e-4, description="For biases and norms.")
    temperature: Temperature = 1.0
    feature_weight: NonNegative = 1.0
    mirror: bool = Field(default=True, description="Show mirrored calibration images too.")
    mixing: Fraction = Field(default=0.5, description="The largest share of another calibration image mixed into each.")

    @property
    def joint_iterations(self) -> int:
        """As a number: those of a quick effort until a recipe is resolved for a device."""
        return self.quick_iterations if self.iterations is None else self.iterations


class LayerWeights(_Strict):
    """Weights of single layers; None: the recipe's own."""

    bits: WeightBits | None = None
    block_size: Literal[0, 16, 32, 64, 128, 256] | None = Field(
        default=None, description="0: one scale per output channel where the recipe has blocks."
    )


class LayerActivations(_Strict):
    """Inputs of single layers, or q, k and v of single attentions; None: the recipe's own."""

    bits: ActivationBits | None = None
    scheme: Literal["auto", "symmetric", "asymmetric"] | None = None


class LayerOverride(_Strict):
    """What is different for the layers and attentions that a pattern names."""

    quantize: Literal["auto", "always", "never"] = Field(
        default="auto", description="auto: as without this entry; always: also where integers gain nothing; never."
    )
    weights: LayerWeights = LayerWeights()
    activations: LayerActivations = LayerActivations()
    softmax_bits: ActivationBits | None = Field(default=None, description="Of an attention's weights.")
    format: Format | None = Field(default=None, description="Of a layer or an attention; None: the recipe's own.")

    def updated(self, later: LayerOverride) -> LayerOverride:
        """Both, field by field; what the later one sets wins."""
        return LayerOverride(
            quantize=self.quantize if later.quantize == "auto" else later.quantize,
            weights=self.weights.model_copy(update=later.weights.model_dump(exclude_none=True)),
            activations=self.activations.model_copy(update=later.activations.model_dump(exclude_none=True)),
            softmax_bits=later.softmax_bits or self.softmax_bits,
            format=later.format or self.format,
        )


class Recipe(_Strict):
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
        return self._validated(_merge(self.model_dump(), changes), f"recipe {self.name}")

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """A copy changed by `key=value` settings such as `reconstruction.iterations=200`.

        Raises:
            UserError: a setting has no '=', or its field is unknown or out of range.
        """
        changes: dict[str, Any] = {}
        for setting in settings:
            changes = _merge(changes, _parsed_setting(setting))
        return self.replace(**changes)

    def resolved(self, *, on_host: bool) -> Recipe:
        """With the effort and the iterations that are meant on a CPU, or on what is faster. A number stays as it is.

        Joint tuning follows an effort that is named. Without one it stays quick everywhere: it is the slowest part of
        what learns on a GPU, and more of it was worth little where that was measured.
        """
        settings, tuning = self.reconstruction, self.tuning
        if tuning.iterations is None:
            count = tuning.quick_iterations * EFFORTS.get(settings.effort, 1)
            tuning = tuning.model_copy(update={"iterations": count})
        if settings.iterations is None:
            if settings.effort == "auto":
                settings = settings.model_copy(update={"effort": "quick" if on_host else "standard"})
            settings = settings.model_copy(update={"iterations": settings.iterations_a_block})
        return self.model_copy(update={"reconstruction": settings, "tuning": tuning})

    def to_yaml(self) -> str:
        """The whole recipe, every field resolved, in YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def _validated(cls, fields: Mapping[str, Any], source: str) -> Recipe:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise UserError(f"{source}: {_first_problem(error)}") from None


def _parsed_setting(setting: str) -> dict[str, Any]:
    """`a.b=value` as `{a: {b: value}}`, the value read as YAML."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"setting '{shown(setting)}': expected key=value, for example reconstruction.iterations=200")
    parts = key.split(".")
    if len(parts) > _DEEPEST_KEY:
        raise UserError(f"setting '{shown(setting)}': no field is that deep; see docs/reference/recipe.md")
    nested: Any = parse_yaml(value, f"setting '{shown(setting)}'")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    # What may be a word instead is named by its class, too.
    field = ".".join(str(part) for part in problem["loc"] if part != Rewrites.__name__)
    if problem["type"] == "extra_forbidden":
        known = sorted(_field_names(Recipe))
        close = get_close_matches(field, known, 1) or get_close_matches(field.rpartition(".")[2], known, 1)
        return f"unknown field '{shown(field)}'" + (
            f"; did you mean '{close[0]}'?" if close else f"; expected {', '.join(Recipe.model_fields)}"
        )
    return f"field '{shown(field)}': {problem['msg'].lower()}, got {shown(problem['input'], quoted=True)}"


def _field_names(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, info in model.model_fields.items():
        yield prefix + name
        kind = info.annotation
        kind = next((one for one in get_args(kind) if one is Rewrites), kind)
        # Python 3.10 calls dict[str, ...] a type, too.
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _field_names(kind, f"{prefix}{name}.")
