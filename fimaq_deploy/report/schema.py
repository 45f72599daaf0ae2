"""What `report.json` holds. Fields are only ever added; a change of meaning gets a new schema number.

Shares are in percent, latencies in milliseconds for a whole batch, sizes in bytes. A value that was not measured is
null, and a row that was not run says why. `report.schema.json` says the same for other tools; `python -m
fimaq_deploy.report` prints it.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA: Final = "fimaq-deploy/report/1"


def _null_unless_finite(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return value if not isinstance(value, float) or math.isfinite(value) else None


# A report may come from anywhere: a gate would pass for a speed-up of zero or a file of less than nothing.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(ge=1e-9, le=1e12)]  # beyond which ratios of them leave the floats
Difference = Annotated[float | None, BeforeValidator(_null_unless_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(_Part):
    """The machine and the software that made the build."""

    platform: str
    cpu: str
    cores: Count
    gpu: str | None = None
    driver: str | None = None
    python: str
    packages: dict[str, str] = Field(description="Distribution name to version, of those that take part.")


class Model(_Part):
    name: str
    weights: str = Field(description="'pretrained', 'random' or the path of a checkpoint.")
    input_shape: tuple[int, int, int] = Field(description="Channels, height, width.")
    classes: Count
    parameters: Count


class Data(_Part):
    """Where the images came from and how many there were."""

    calibration: str
    calibration_images: Count
    evaluation: str
    evaluation_images: Count
    labelled: bool = Field(description="Whether the evaluation images have classes, so that accuracy means something.")
    bank: str | None = Field(default=None, description="Labelled images that neighbours vote from, or probes are of.")
    images_sha256: str | None = Field(
        default=None, description="Of the evaluation images as the model reads them, and of the bank."
    )
    labels_sha256: str | None = Field(
        default=None, description="Of what they are labelled with: classes, objects or maps; empty where with nothing."
    )
    notes: list[str] = Field(default=[], description="What a reader should know, such as unreadable images left out.")


class Meaning(_Part):
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


class Output(_Part):
    """One output of the model, and what it is measured by."""

    name: str
    task: str = Field(
        description="classes, embedding, multilabel, regression, dense, choices, detection, segmentation or depth."
    )
    shape: list[int] = Field(description="Without the images' axis.")
    figures: list[Meaning]


class Figure(_Part):
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


class Accuracy(_Part):
    images: Count
    top1: float
    top5: float | None = Field(description="Null with fewer than 6 classes, where it says nothing.")
    interval: tuple[float, float] = Field(description="95 % Wilson interval of top1.")
    not_finite: Count = Field(default=0, description="Images whose logits held NaN or infinity; they count as wrong.")


class Comparison(_Part):
    """One row against another on the same images."""

    to: str = Field(description="The id of the other row.")
    agreement: float | None = Field(
        description="Share of images with the same top-1 prediction; null where an output is no logits of classes."
    )
    largest_difference: Difference = Field(
        description="Largest absolute difference between two numbers of an output; null where it is not finite, and of "
        "objects, which come in any order."
    )
    figures: list[Figure] = []


class Latency(_Part):
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


class Row(_Part):
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
    latency: list[Latency] = []
    file: str | None = None
    size_bytes: Count | None = None
    peak_memory_bytes: Count | None = Field(default=None, description="Of the process that ran this row alone.")

    @property
    def precision(self) -> Literal["FP32", "FP16", "BF16", "quantized"]:
        """What it computes in; the id of a full-precision row ends in its type."""
        ending = self.id.rpartition("-")[2].upper()
        return ending if ending in ("FP32", "FP16", "BF16") else "quantized"  # type: ignore[return-value]


class TargetStatus(_Part):
    """What became of one target."""

    name: str
    not_built: str | None = Field(default=None, description="Why there is no file for it; null where there is one.")
    not_run: str | None = Field(default=None, description="Why it was not run; null where it ran.")
    failed: bool = Field(default=False, description="Whether its compiler was here and refused the graph.")
    compile_seconds: float | None = Field(default=None, description="Null where nothing had to be compiled.")
    ships: str | None = Field(
        default=None,
        description="The original's file, where that is what to ship since the runtime gains nothing from integers.",
    )
    remark: str | None = Field(default=None, description="What to know of the runtime before choosing it.")


class Block(_Part):
    """Reconstruction of one block. Losses are squared output errors relative to the output's power."""

    name: str
    loss_before: float
    loss_after: float
    iterations: Count
    seconds: float
    curve: list[tuple[int, float]] = Field(
        default=[], description="Loss of a minibatch while learning, partly in full precision, as (iteration, loss)."
    )
    stopped: str = Field(
        default="ceiling", description="Why no more iterations: ceiling, converged or nothing to learn."
    )


class GridUse(_Part):
    """How one tensor fills the integers that it may take, on calibration images."""

    name: str
    kind: Literal["weight", "activation"]
    bits: Count
    used_levels: Count = Field(description="Integers that occur.")
    levels: Count = Field(description="Integers that the grid has.")
    clipped: float = Field(description="Share of the values, in percent, that lie beyond the grid.")
    evaluated: float | None = Field(
        default=None, description="The same share on evaluation images; null where nobody looked, and of weights."
    )


class Sensitivity(_Part):
    """What quantizing one block or layer costs, as the Fisher loss of the logits, which needs no labels."""

    name: str
    kind: Literal["block", "layer"]
    alone: float = Field(description="Loss with only this one quantized.")
    spared: float = Field(description="By how much the loss falls when everything but this one is quantized.")


class MixPoint(_Part):
    """One mix of formats of the layers."""

    megabytes: float = Field(description="What model.onnx takes.")
    speed: float = Field(
        description="How many times as fast its matrix products are as in floats (16 bits on GPUs, 32 on CPUs)."
    )
    loss: float = Field(description="Sum of the Fisher losses of its layers, each measured alone.")


class MixProbe(_Part):
    """A mix that learned and was measured."""

    point: MixPoint
    loss: float | None = Field(default=None, description="Divergence of the outputs on calibration images.")
    drop: float | None = Field(default=None, description="What it lost on the evaluation images, as of max_drop.")


class MixTime(_Part):
    """How fast the products of the chosen layers are in what was built, together."""

    target: str
    speed: float = Field(description="How many times as fast as in floats, each at its best of several rounds.")
    interval: tuple[float, float] = Field(description="Its 95 % interval over groups of rounds.")


class MixBuilt(_Part):
    """What was built of a mix, beside what was foreseen."""

    megabytes: float = Field(description="What model.onnx takes.")
    times: list[MixTime] = Field(default=[], description="Of targets that were timed on this machine.")


class Mix(_Part):
    """Which format each layer got under a budget."""

    size_budget: float | None = Field(default=None, description="In megabytes.")
    speed_budget: float | None = None
    costs: str = Field(default="", description="What times of products rest on: a measurement, a roofline, types.")
    formats: dict[str, str] = Field(description="w4a8, w8a8, fp8, nvfp4 or floats, by layer.")
    losses: dict[str, dict[str, float]] = Field(description="Fisher loss of each layer alone, by format.")
    chosen: MixPoint
    front: list[MixPoint] = Field(description="Some of the best mixes for every budget, the cheapest first.")
    probes: list[MixProbe] = Field(default=[], description="What learned before it was chosen.")
    built: MixBuilt | None = Field(default=None, description="What came of it.")


class RewriteTrial(_Part):
    """A setting that was tried beside those that were taken before it."""

    setting: str = Field(description='As of --set, such as "rewrites.values=true".')
    beside: list[str] = []
    loss: float = Field(description="Divergence of the outputs, mean over images that set none of the scales.")
    gain: float = Field(description="By how much it is lower.")
    noise: float = Field(description="Three standard errors of the gain, image by image.")
    taken: bool


class RewriteChoice(_Part):
    """What a recipe of `rewrites: auto` rests on. Nothing had learned."""

    images: int
    loss: float = Field(description="With the rewrites of the model's family.")
    trials: list[RewriteTrial]


class AuditBlock(_Part):
    """The kernels of one block in a compiled layer plan."""

    name: str
    kernels: Count
    gemms: Count
    int8_gemms: Count
    weight_only_gemms: Count = Field(
        default=0, description="GEMMs that read integer weights and decode them themselves."
    )
    left_alone: Count = Field(
        default=0,
        description="Products in floats that gain nothing from integers, tiny or of one row an image; no GEMMs.",
    )
    attention: str | None = Field(
        default=None, description="'int8', 'float8', 'float16', ... where it is fused, 'unfused', or null."
    )
    dequantized_weights: Count = Field(
        description="Weights that a kernel of its own writes to memory as floats while the engine runs."
    )
    conversions: Count = Field(description="Kernels that only change a format or a type.")
    twin_kernels: Count | None = Field(
        default=None, description="Kernels of the same block in the full-precision twin."
    )
    fp8_gemms: Count = Field(default=0, description="GEMMs that multiply 8-bit floats.")
    fp4_gemms: Count = Field(default=0, description="GEMMs that multiply 4-bit floats.")


class Audit(_Part):
    """What an engine was compiled to."""

    target: str
    compute_capability: str | None = None
    blocks: list[AuditBlock]
    broken: list[str] = Field(default=[], description="Promises that the plan breaks, as sentences.")


class StageParity(_Part):
    """One stage computed by two runtimes from the same input."""

    name: str
    largest_difference: Difference = Field(description="Largest absolute difference; null where it is not finite.")
    differing: float = Field(description="Share of the elements, in percent, that differ by more than the tolerance.")
    largest_step: int | None = Field(
        default=None,
        description="By how many steps integers differ at most: those of the stage's own quantizers as written, null "
        "without any; those of the one that it feeds, or of 8 bits over its range, where it is fused.",
    )
    flipped: float | None = Field(default=None, description="Share of those integers, in percent, that differ.")


class Parity(_Part):
    """Fake-quant against another runtime, stage by stage."""

    to: str = Field(description="The id of the other row.")
    stages: list[StageParity]
    first_parting: str | None = Field(default=None, description="The first stage beyond the tolerance.")
    differing_weights: list[str] = Field(
        default=[], description="Weights whose integers differ from the quantized model's."
    )


class Object(_Part):
    """An object that a row found in a picture."""

    box: list[float] = Field(description="Left, top, right and bottom edge, in pixels.")
    label: str
    score: float


class Answer(_Part):
    """What a row found in a picture."""

    row: str
    objects: list[Object] = Field(default=[], description="Those it is sure of, the surest first.")
    classes: str | None = Field(default=None, description="PNG, base64: the class of each pixel.")
    masks: str | None = Field(
        default=None,
        description="PNG, base64: which of the objects each pixel is of, counted from 1, the surest where several are; "
        "0 is none. Null where there are no masks.",
    )


class Picture(_Part):
    """An evaluation image, and what was found in it."""

    image: str = Field(description="JPEG, base64, with at most 256 pixels a side.")
    width: Count = Field(description="Of what the model reads.")
    height: Count
    answers: list[Answer]


class Step(_Part):
    name: str
    seconds: float


class Report(_Part):
    """Everything that one build measured."""

    schema_version: Literal["fimaq-deploy/report/1"] = Field(default=SCHEMA, alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str = Field(description="What reproduces this build.")
    seed: int
    max_drop: float | None = Field(
        default=None,
        description="What a deployed row was allowed to lose of the user's own figure, else of that against labels.",
    )
    min_agreement: float | None = Field(default=None, description="Percent that had to agree with the original.")
    min_cosine: float | None = Field(default=None, description="The least cosine with the original.")
    outputs: list[Output] = Field(default=[], description="The main one first. Empty before 0.2.0: logits of classes.")
    evaluate: str | None = Field(default=None, description="The user's own function, as package.module:function.")
    model: Model
    recipe: dict[str, Any]
    data: Data
    environment: Environment
    targets: list[TargetStatus]
    rows: list[Row]
    blocks: list[Block]
    steps: list[Step]
    grids: list[GridUse] = []
    sensitivity: list[Sensitivity] = []
    mix: Mix | None = Field(default=None, description="Of a recipe that a budget chose.")
    rewrites: RewriteChoice | None = Field(default=None, description="Of a recipe whose rewrites were measured.")
    audits: list[Audit] = []
    parity: list[Parity] = []
    pictures: list[Picture] = Field(default=[], description="The first images of a detector or a segmenter.")
    predictions: str | None = Field(default=None, description="File with every row's top-1 prediction for each image.")

    def to_json(self) -> str:
        """Indented JSON that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def row(self, row_id: str) -> Row | None:
        return next((row for row in self.rows if row.id == row_id), None)

    def title_of(self, row_id: str | None) -> str:
        """Of a row; the id itself where there is no such row."""
        row = self.row(row_id or "")
        return row.title if row else row_id or ""

    @property
    def baseline(self) -> Row:
        """The full-precision original."""
        return self.rows[0]

    @property
    def deployed(self) -> list[Row]:
        """The rows that a user would ship and that ran here."""
        return [row for row in self.rows if row.deployed and row.not_run is None]

    def drop(self, row: Row) -> float | None:
        """Points of top-1 that a row loses against the original; None where there is no top-1."""
        if row.accuracy is None or self.baseline.accuracy is None:
            return None
        return self.baseline.accuracy.top1 - row.accuracy.top1


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}
