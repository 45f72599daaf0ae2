"""What `report.json` holds. Fields are only ever added; a change of meaning gets a new schema number.

Shares are in percent, latencies in milliseconds for a whole batch, sizes in bytes. A value that was not measured is
null, and a row that was not run says why. `report.schema.json` says the same for other tools; `python -m
fimaq_deploy.report` prints it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from fimaq_deploy.report.schema.engines import Audit, Parity, TargetStatus
from fimaq_deploy.report.schema.inputs import Data, Environment, Model
from fimaq_deploy.report.schema.learning import Block, GridUse, Mix, RewriteChoice, Sensitivity
from fimaq_deploy.report.schema.rows import Output, Picture, Row
from fimaq_deploy.report.schema.values import Part

SCHEMA: Final = "fimaq-deploy/report/1"


class Step(Part):
    name: str
    seconds: float


class Report(Part):
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
    grids: list[GridUse] = Field(default=[])
    sensitivity: list[Sensitivity] = Field(default=[])
    mix: Mix | None = Field(default=None, description="Of a recipe that a budget chose.")
    rewrites: RewriteChoice | None = Field(default=None, description="Of a recipe whose rewrites were measured.")
    audits: list[Audit] = Field(default=[])
    parity: list[Parity] = Field(default=[])
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
