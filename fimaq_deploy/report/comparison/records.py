"""What was found between two builds, as data that JSON holds."""

from __future__ import annotations

import json
import shlex
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from fimaq_deploy.errors import non_negative, within
from fimaq_deploy.report.comparison.statistics import Interval

SCHEMA: Final = "fimaq-deploy/comparison/1"
_ROUNDING = 1e-9  # so that a loss of exactly the limit is within it

Of = Literal["labels", "user", "original", "latency", "size"]
Verdict = Literal["regression", "doubtful", "allowed", "worse", "same", "better", "not judged"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Part):
    """What a build may lose, and how close to its own original it has to be. Null is not judged.

    Raises:
        UserError: one is negative, infinite, no number, or beyond what it is a limit of.
    """

    max_drop: float | None = Field(
        default=None,
        description="Of the user's own figure, else of each against labels: points of top-1, of box and mask AP, …",
    )
    max_slowdown: float | None = Field(default=None, description="Percent of time, relative to full precision.")
    max_growth: float | None = Field(default=None, description="Percent of file size.")
    min_agreement: float | None = Field(default=None, description="Percent of answers that have to be the original's.")
    min_cosine: float | None = Field(default=None, description="The least cosine with the original.")

    @field_validator("*", mode="before")
    @classmethod
    def _checked(cls, value: float | None, info: ValidationInfo) -> float | None:
        option = _option(info.field_name or "")
        if value is None:
            return None
        if info.field_name == "min_agreement":
            return within(option, value, 0, 100)
        return within(option, value, -1, 1) if info.field_name == "min_cosine" else non_negative(option, value)

    @property
    def asked(self) -> dict[str, float]:
        """The thresholds that are set, by their option on the command line."""
        return {_option(name): value for name, value in self if value is not None}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Difference(_Part):
    """One figure of one row in both builds."""

    row: str
    title: str
    figure: str = Field(description="latency, size, or the name of a figure in the report, such as top1.")
    of: Of = Field(description="What it measures: answers against labels, by the user, against the original; costs.")
    output: str = Field(default="", description="Which output, where the model has several.")
    measure: str = Field(description="The figure as a reader calls it.")
    unit: str = Field(default="", description="'%' or empty.")
    higher_is_better: bool = True
    batch_size: int | None = None
    new: float = Field(description="The figure itself, the speed-up over full precision, or bytes.")
    baseline: float
    new_ms: float | None = None
    baseline_ms: float | None = None
    loss: float = Field(description="How much worse the new build is: points or units, or percent of time or size.")
    interval: Interval | None = Field(
        default=None, description="95 % interval of the loss; null where it is exact or unknown."
    )
    p_value: float | None = Field(default=None, description="Exact McNemar probability; null unless paired.")
    limit: float | None = Field(
        default=None, description="The loss that was allowed; null where none was set or it is unjudged."
    )
    verdict: Verdict = Field(description="'allowed' is a loss within the limit.")

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, fields: Any) -> Any:
        """Before 0.2.0 the figure's name said the rest."""
        known = _BEFORE.get(str(fields.get("figure"))) if isinstance(fields, dict) and "of" not in fields else None
        if known is None:
            return fields
        batch = f", batch {fields['batch_size']}" if known["of"] == "latency" and "batch_size" in fields else ""
        return {**fields, **known, "measure": f"{known['measure']}{batch}"}


_BEFORE = {
    "top1": {"of": "labels", "measure": "top-1", "unit": "%"},
    "latency": {"of": "latency", "measure": "time"},
    "size": {"of": "size", "measure": "size"},
}


def verdict_of(loss: float, limit: float | None, real: bool) -> Verdict:
    """real: whether chance does not explain the loss."""
    if limit is not None and loss > limit + _ROUNDING:
        return "regression" if real else "doubtful"
    if not real:
        return "same"
    if loss < 0:
        return "better"
    return "worse" if limit is None else "allowed"


class Change(_Part):
    """Something else that is not the same in both builds."""

    name: str
    new: str
    baseline: str


class Comparison(_Part):
    """The new build against one other. Every sentence says which row it is about."""

    baseline: str
    differences: list[Difference]
    agreement: dict[str, float] = Field(description="Row id to the share of images, in percent, predicted alike.")
    regressions: list[str]
    doubts: list[str] = Field(description="Losses beyond a threshold that chance may explain.")
    obstacles: list[str] = Field(description="Why a threshold that was asked for could not be judged.")
    notes: list[str]
    changes: list[Change]


class Judgement(_Part):
    """The new build against each of the others."""

    schema_version: Literal["fimaq-deploy/comparison/1"] = Field(default=SCHEMA, alias="schema")
    new: str
    created: str = Field(description="When the new build was made.")
    model: str
    thresholds: Thresholds
    broken: list[str] = Field(
        default=[], description="What the new build breaks by itself: too far from its own original, or ruined."
    )
    comparisons: list[Comparison]

    @property
    def regressions(self) -> list[str]:
        """What fails: by itself, and against each baseline."""
        return [*self.broken, *(sentence for one in self.comparisons for sentence in one.regressions)]

    @property
    def obstacles(self) -> list[str]:
        return [sentence for one in self.comparisons for sentence in one.obstacles]

    @property
    def exit_code(self) -> int:
        """1 for a regression or a broken build, 2 where a threshold could not be judged, 0 otherwise."""
        return 1 if self.regressions else 2 if self.obstacles else 0

    @property
    def command(self) -> str:
        """The command line that judges this again."""
        options = [word for name, value in self.thresholds.asked.items() for word in (name, f"{value:g}")]
        return shlex.join(["fimaq-deploy", "compare", self.new, *(one.baseline for one in self.comparisons), *options])

    def to_json(self) -> str:
        """Indented JSON that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def document(self) -> dict[str, Any]:
        """For programs: the same as a value."""
        return json.loads(self.to_json())
