"""What was found between two builds, as data that JSON holds and as the words that every output uses."""

from __future__ import annotations

import shlex
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fimaq_deploy.report.comparison.statistics import Interval
from fimaq_deploy.report.words import points_text, size_text, times_text

SCHEMA: Final = "fimaq-deploy/comparison/1"
HEADER = ("", "figure", "new", "baseline", "change", "verdict")

Figure = Literal["top1", "latency", "size"]
Verdict = Literal["regression", "doubtful", "worse", "same", "better", "not judged"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Part):
    """What a build may lose. Null is not judged."""

    max_drop: float | None = Field(default=None, description="Points of top-1.")
    max_slowdown: float | None = Field(
        default=None, description="Percent of time, relative to the full-precision twin."
    )
    max_growth: float | None = Field(default=None, description="Percent of file size.")

    @property
    def asked(self) -> dict[str, float]:
        """The thresholds that are set, by their option on the command line."""
        return {f"--{name.replace('_', '-')}": value for name, value in self if value is not None}


class Difference(_Part):
    """One figure of one row in both builds."""

    row: str
    title: str
    figure: Figure
    batch_size: int | None = None
    new: float = Field(description="Percent of images, speed-up over the full-precision twin, or bytes.")
    baseline: float
    new_ms: float | None = None
    baseline_ms: float | None = None
    loss: float = Field(description="How much worse the new build is: points, or percent of time or size.")
    interval: Interval | None = Field(
        default=None, description="95 % interval of the loss; null where it is exact or unknown."
    )
    p_value: float | None = Field(default=None, description="Exact McNemar probability; null unless paired.")
    limit: float | None = Field(
        default=None, description="The loss that was allowed; null where none was set or it is unjudged."
    )
    verdict: Verdict


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
    comparisons: list[Comparison]

    @property
    def regressions(self) -> list[str]:
        return [sentence for one in self.comparisons for sentence in one.regressions]

    @property
    def obstacles(self) -> list[str]:
        return [sentence for one in self.comparisons for sentence in one.obstacles]

    @property
    def exit_code(self) -> int:
        """1 for a regression, 2 where a threshold could not be judged, 0 otherwise."""
        return 1 if self.regressions else 2 if self.obstacles else 0

    @property
    def command(self) -> str:
        """The command line that judges this again."""
        options = [word for name, value in self.thresholds.asked.items() for word in (name, f"{value:g}")]
        return shlex.join(["fimaq-deploy", "compare", self.new, *(one.baseline for one in self.comparisons), *options])

    def to_json(self) -> str:
        """Indented JSON that ends in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def summary(judgement: Judgement) -> str:
    """The outcome in a sentence."""
    against = ", ".join(one.baseline for one in judgement.comparisons)
    found, open_ = len(judgement.regressions), len(judgement.obstacles)
    if found:
        what = "1 regression" if found == 1 else f"{found} regressions"
    elif open_:
        what = "no regression found, but not every threshold could be judged,"
    elif judgement.thresholds.asked:
        what = "no regression"
    else:
        what = "shown without a threshold, so nothing is judged,"
    return f"{judgement.model}: {what} against {against}."


def cells(difference: Difference) -> tuple[str, ...]:
    """One difference in the order of HEADER."""
    d = difference
    return (
        d.title,
        figure_text(d),
        _value(d.figure, d.new, d.new_ms),
        _value(d.figure, d.baseline, d.baseline_ms),
        change_text(d),
        verdict_text(d),
    )


def figure_text(difference: Difference) -> str:
    """What was measured."""
    if difference.figure == "latency":
        return f"time, batch {difference.batch_size}"
    return "top-1" if difference.figure == "top1" else "size"


def change_text(difference: Difference) -> str:
    """How the figure changed, upwards with a plus, and how sure that is."""
    d = difference
    certainty = certainty_text(d)
    if d.figure == "top1":
        amount = f"{0.0 - d.loss:+.2f} points"
    else:
        amount = f"{d.loss:+.1f} %" if d.figure == "latency" else f"{d.loss:+.1f} %, {d.new - d.baseline:+,.0f} bytes"
    return f"{amount} ({certainty})" if certainty else amount


def certainty_text(difference: Difference) -> str:
    """The interval of the change and the probability, as far as there are any."""
    d = difference
    if d.interval is None:
        return ""
    low, high = (-d.interval[1], -d.interval[0]) if d.figure == "top1" else d.interval
    p_value = "" if d.p_value is None else f", p = {d.p_value:.2g}"
    return f"{low:+.1f} to {high:+.1f}{p_value}"


def verdict_text(difference: Difference) -> str:
    """The verdict in a word."""
    if difference.verdict == "same":
        return "equal" if difference.loss == 0 else "alike"
    return difference.verdict


def sentence(difference: Difference, baseline: str) -> str:
    """A loss beyond its threshold."""
    limit = difference.limit or 0.0
    allowed = f"a loss of {points_text(limit) if difference.figure == 'top1' else f'{limit:g} %'} is allowed"
    relative = ", relative to full precision" if difference.figure == "latency" else ""
    doubt = "; it may be chance" if difference.verdict == "doubtful" else ""
    change = f"{figure_text(difference)} {change_text(difference)}{relative}"
    return f"{difference.title}: {change}, against {baseline}; {allowed}{doubt}"


def _value(figure: Figure, value: float, milliseconds: float | None) -> str:
    if figure == "top1":
        return f"{value:.2f} %"
    if figure == "size":
        return size_text(round(value))
    return times_text(value) if milliseconds is None else f"{milliseconds:.2f} ms, {times_text(value)}"
