"""What was measured of each way to run the model: figures, latencies, and what it found in pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fimaq_deploy.report.schema.values import Count, Difference, Part, Positive


class Meaning(Part):
    """What a figure says, so that whoever reads it needs to know no kind of output by name."""

    name: str
    title: str = Field(description="As a table calls it.")
    unit: str = Field(default="", description="'%', or empty: that of the output, or none.")
    told: str = Field(description="As a sentence tells it, with {value} and, of the original, its title as {other}.")
    of: Literal["original", "labels", "user"] = Field(
        description="What the outputs are compared with; 'user' is whatever the user's own function does."
    )
    higher_is_better: bool = True
    headline: bool = Field(default=False, description="Whether this is the one to tell where only one is told.")
    column: bool = Field(default=False, description="Whether the table of all rows has a column of it.")
    gate: Literal["agreement", "cosine"] | None = Field(
        default=None, description="The threshold that applies: --min-agreement or --min-cosine."
    )
    drop: Literal["build", "comparison"] | None = Field(
        default=None,
        description="Where --max-drop applies to it beside the headline against labels: 'build' is in builds and when "
        "builds are compared, 'comparison' only then.",
    )
    floor: float | None = Field(default=None, description="A model on the wrong side of it is plainly ruined.")


class Output(Part):
    """One output of the model, and what it is measured by."""

    name: str
    task: str = Field(
        description="classes, embedding, multilabel, regression, dense, choices, detection, segmentation or depth."
    )
    shape: list[int] = Field(description="Without the images' axis.")
    figures: list[Meaning]


class Figure(Part):
    """One figure of one row."""

    output: str = Field(default="", description="Empty for a figure that the user's own function returned.")
    name: str
    value: Difference = Field(description="Percent where the unit is '%'; null where it is not finite.")
    interval: tuple[float, float] | None = Field(
        default=None, description="95 %: Wilson's of a share, else the bootstrap over images; null where unknown."
    )
    loss_interval: tuple[float, float] | None = Field(
        default=None,
        description="95 % of what was lost against the original, from the same images or the same resamples of them; "
        "null where unknown, and of figures that --max-drop is not about.",
    )


class Accuracy(Part):
    images: Count
    top1: float
    top5: float | None = Field(description="Null with fewer than 6 classes, where it says nothing.")
    interval: tuple[float, float] = Field(description="95 % Wilson interval of top1.")
    not_finite: Count = Field(default=0, description="Images whose logits held NaN or infinity; they count as wrong.")


class Comparison(Part):
    """One row against another on the same images."""

    to: str = Field(description="The id of the other row.")
    agreement: float | None = Field(
        description="Share of images with the same top-1 prediction; null where an output is no logits of classes."
    )
    largest_difference: Difference = Field(
        description="Largest absolute difference between two numbers of an output; null where it is not finite, and of "
        "objects, which come in any order."
    )
    figures: list[Figure] = Field(default=[])


class Latency(Part):
    """One batch size, measured in turns with the row it is compared to."""

    batch_size: Annotated[int, Field(ge=1, le=2**31 - 1)]
    p50_ms: Positive
    p90_ms: Positive
    p99_ms: Positive
    images_per_second: Positive
    floor_ms: float | None = Field(
        default=None, description="What the machine's measured rates allow at best (roofline)."
    )
    ratio_to: str | None = Field(default=None, description="The id of the row that `speedup` is relative to.")
    speedup: Positive | None = Field(default=None, description="Median of the turns' own ratios; above 1 is faster.")
    speedup_interval: tuple[Positive, Positive] | None = Field(
        default=None,
        description="95 % interval of the median ratio: how it varies from turn to turn, not from run to run.",
    )


class Row(Part):
    """One way to run the model, from the full-precision original to a compiled engine."""

    id: str
    title: str
    deployed: bool = Field(
        default=False, description="Whether this is what a user would ship, so that gates apply to it."
    )
    not_run: str | None = Field(default=None, description="Why there are no measurements; null where it ran.")
    accuracy: Accuracy | None = None
    comparison: Comparison | None = Field(
        default=None, description="With the row that it should equal, which is its neighbour in the chain: a diagnosis."
    )
    original: Comparison | None = Field(
        default=None, description="With the full-precision original in PyTorch, which the verdict rests on."
    )
    labelled: list[Figure] = Field(default=[], description="Against the labels, where the images have fitting ones.")
    own: list[Figure] = Field(default=[], description="What the user's own function returned; higher is better.")
    not_finite: Count = Field(default=0, description="Images with NaN or infinity in an output.")
    latency: list[Latency] = Field(default=[])
    file: str | None = None
    size_bytes: Count | None = None
    peak_memory_bytes: Count | None = Field(default=None, description="Of the process that ran this row alone.")

    @property
    def precision(self) -> Literal["FP32", "FP16", "BF16", "quantized"]:
        """What it computes in; the id of a full-precision row ends in its type."""
        ending = self.id.rpartition("-")[2].upper()
        return ending if ending in ("FP32", "FP16", "BF16") else "quantized"  # type: ignore[return-value]


class Object(Part):
    """An object that a row found in a picture."""

    box: list[float] = Field(description="Left, top, right and bottom edge, in pixels.")
    label: str
    score: float


class Answer(Part):
    """What a row found in a picture."""

    row: str
    objects: list[Object] = Field(default=[], description="Those it is sure of, the surest first.")
    classes: str | None = Field(default=None, description="PNG, base64: the class of each pixel.")
    masks: str | None = Field(
        default=None,
        description="PNG, base64: which of the objects each pixel is of, counted from 1, the surest where several are; "
        "0 is none. Null where there are no masks.",
    )


class Picture(Part):
    """An evaluation image, and what was found in it."""

    image: str = Field(description="JPEG, base64, with at most 256 pixels a side.")
    width: Count = Field(description="Of what the model reads.")
    height: Count
    answers: list[Answer]
