"""What is done to a model until its numbers are integers: rewrites, searched scales, learned blocks, joint tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fimaq_deploy.recipe.values import Count, Fraction, NonNegative, Number, Positive, Section, Temperature

Loss = Literal["mse", "brecq", "diag", "low_rank", "dplr", "least_squares", "feature", "divergence"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
Rounding = Literal["nearest", "adaround", "straight_through", "sign_gradient"]
Effort = Literal["auto", "quick", "standard", "thorough"]
# Iterations of a block, as a multiple of a quick effort's.
EFFORTS: dict[Effort, int] = {"quick": 1, "standard": 5, "thorough": 10}
# What learning rates of blocks are called.
RATES = ("weight_lr", "scale_lr", "weight_scale_lr", "other_lr")


class Rewrites(Section):
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


class ScaleSearch(Section):
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


class Reconstruction(Section):
    """Block reconstruction. `iterations: 0` keeps the initial scales and nearest rounding."""

    effort: Effort = Field(
        default="auto",
        description="How long blocks learn, and joint tuning with them. standard: 5 times the iterations of quick; "
        "thorough: 10 times. auto: quick on a CPU; elsewhere standard for the blocks, quick for joint tuning.",
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
    long_rates: Positive = Field(
        default=1.0,
        description="Multiplies these four rates where the effort is longer than quick; not where `iterations` is set.",
    )
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

    def settled(self) -> Reconstruction:
        """With the iterations and the learning rates of its effort as numbers; where iterations are one, as it is."""
        if self.iterations is not None:
            return self
        found: dict[str, float] = {"iterations": self.iterations_a_block, "long_rates": 1.0}
        if EFFORTS.get(self.effort, 1) > 1:
            found |= {name: getattr(self, name) * self.long_rates for name in RATES}
        return self.model_copy(update=found)


class Tuning(Section):
    """Joint tuning of all blocks after their reconstruction. `iterations: 0` leaves it out."""

    quick_iterations: Count = Field(default=300, description="Iterations of a quick `reconstruction.effort`.")
    iterations: Number | None = Field(
        default=None, description="Iterations, whatever the effort and the model; None: as many as those say."
    )
    only_inside: bool = Field(
        default=False,
        description="Only an encoder inside of somebody's model is tuned, a detector's for one; one by itself is not.",
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
        """As a number: until a recipe is resolved, those of a quick effort of a model that stands by itself."""
        if self.iterations is not None:
            return self.iterations
        return 0 if self.only_inside else self.quick_iterations
