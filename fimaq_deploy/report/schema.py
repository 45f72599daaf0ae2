"""What `report.json` holds. Fields are only ever added; a change of meaning gets a new schema number.

Shares are in percent, latencies in milliseconds for a whole batch, sizes in bytes. A value that was not measured is
null, and a row that was not run says why.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "fimaq-deploy/report/1"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(_Part):
    """The machine and the software that made the build."""

    platform: str
    cpu: str
    cores: int
    gpu: str | None = None
    driver: str | None = None
    python: str
    packages: dict[str, str] = Field(description="Distribution name to version, of those that take part.")


class Model(_Part):
    name: str
    weights: str = Field(description="'pretrained', 'random' or the path of a checkpoint.")
    input_shape: tuple[int, int, int] = Field(description="Channels, height, width.")
    classes: int
    parameters: int


class Data(_Part):
    """Where the images came from and how many there were."""

    calibration: str
    calibration_images: int
    evaluation: str
    evaluation_images: int
    labelled: bool = Field(description="Whether the evaluation images have classes, so that accuracy means something.")
    notes: list[str] = Field(default=[], description="What a reader should know, such as unreadable images left out.")


class Accuracy(_Part):
    images: int
    top1: float
    top5: float | None = Field(description="Null with fewer than 6 classes, where it says nothing.")
    interval: tuple[float, float] = Field(description="95 % Wilson interval of top1.")
    not_finite: int = Field(0, description="Images whose logits held NaN or infinity; they count as wrong.")


class Comparison(_Part):
    """One row against another on the same images."""

    to: str = Field(description="The id of the other row.")
    agreement: float = Field(description="Share of images with the same top-1 prediction.")
    largest_difference: float = Field(description="Largest absolute difference between two logits.")


class Latency(_Part):
    """One batch size, measured in turns with the row it is compared to."""

    batch_size: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    ratio_to: str | None = Field(None, description="The id of the row that `speedup` is relative to.")
    speedup: float | None = Field(None, description="Median of the turns' own ratios; above 1 is faster.")


class Row(_Part):
    """One way to run the model, from the full-precision original to a compiled engine."""

    id: str
    title: str
    deployed: bool = Field(False, description="Whether this is what a user would ship, so that gates apply to it.")
    not_run: str | None = Field(None, description="Why there are no measurements; null where it ran.")
    accuracy: Accuracy | None = None
    comparison: Comparison | None = None
    latency: list[Latency] = []
    file: str | None = None
    size_bytes: int | None = None


class TargetStatus(_Part):
    """What became of one target."""

    name: str
    not_built: str | None = Field(None, description="Why there is no file for it; null where there is one.")
    not_run: str | None = Field(None, description="Why it was not run; null where it ran.")
    failed: bool = Field(False, description="Whether its compiler was here and refused the graph.")
    compile_seconds: float | None = Field(None, description="Null where nothing had to be compiled.")


class Block(_Part):
    """Reconstruction of one block. Losses are squared output errors relative to the output's power."""

    name: str
    loss_before: float
    loss_after: float
    iterations: int
    seconds: float


class Step(_Part):
    name: str
    seconds: float


class Report(_Part):
    """Everything that one build measured."""

    schema_version: Literal["fimaq-deploy/report/1"] = Field(SCHEMA, alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str = Field(description="What reproduces this build.")
    seed: int
    model: Model
    recipe: dict[str, Any]
    data: Data
    environment: Environment
    targets: list[TargetStatus]
    rows: list[Row]
    blocks: list[Block]
    steps: list[Step]

    def to_json(self) -> str:
        """Indented JSON that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def row(self, row_id: str) -> Row | None:
        return next((row for row in self.rows if row.id == row_id), None)

    @property
    def baseline(self) -> Row:
        """The full-precision original."""
        return self.rows[0]

    @property
    def deployed(self) -> list[Row]:
        """The rows that a user would ship and that ran here."""
        return [row for row in self.rows if row.deployed and row.not_run is None]

    def drop(self, row: Row) -> float | None:
        """Points of top-1 that a row loses against the original; None where accuracy was not measured."""
        if row.accuracy is None or self.baseline.accuracy is None:
            return None
        return self.baseline.accuracy.top1 - row.accuracy.top1
