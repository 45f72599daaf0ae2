"""A build against earlier ones of the same model, every difference judged with its uncertainty.

A regression is a loss that is beyond its threshold and that chance does not explain:

- top-1: image by image where both builds kept their predictions (exact McNemar test), else from the two intervals;
- latency: the speed-up over the full-precision twin, which each build measured in turns with it in one run, so that
  two machines of the same kind compare even when one is busier; the interval is of what varies within the runs;
- size: exact.

Only rows that a user would ship are held to thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.errors import UserError
from fimaq_deploy.report.comparison.records import (
    Change,
    Comparison,
    Difference,
    Figure,
    Judgement,
    Thresholds,
    Verdict,
    sentence,
)
from fimaq_deploy.report.comparison.statistics import (
    SIGNIFICANCE,
    Interval,
    Pairs,
    correlation,
    difference_interval,
    mcnemar,
    ratio_interval,
)
from fimaq_deploy.report.load import load_report
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.report.schema import Latency, Report, Row

_ROUNDING = 1e-9  # so that a loss of exactly the limit is within it
_OPTIONS: dict[str, Figure] = {"--max-drop": "top1", "--max-slowdown": "latency", "--max-growth": "size"}


@dataclass(frozen=True)
class Build:
    """What one build left. name: how the user called it; predictions: None where only the report was kept."""

    name: str
    report: Report
    predictions: Predictions | None


def load_build(path: str | Path) -> Build:
    """A build from its folder or its report.json, with the predictions where they lie beside it.

    Raises:
        UserError: no report, or one that cannot be read, or unreadable predictions.
    """
    report = load_report(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / Path(report.predictions or "").name
    return Build(str(path), report, Predictions.load(file) if file.is_file() else None)


def compare(new: Build, baselines: Sequence[Build], thresholds: Thresholds | None = None) -> Judgement:
    """Judge `new` against each baseline.

    Raises:
        UserError: they are of different models or were evaluated on different images, or a threshold is no number.
    """
    limits = thresholds or Thresholds()
    for option, value in limits.asked.items():
        if not isfinite(value):
            raise UserError(f"{option} {value}: expected a number")
    found = [_Pair(new, baseline, limits).compare() for baseline in baselines]
    return Judgement(
        new=new.name,
        created=new.report.created,
        model=new.report.model.name,
        thresholds=limits,
        comparisons=found,
    )


@dataclass(frozen=True)
class _Pair:
    """The new build and one baseline. `compare` asks in the order of the methods."""

    new: Build
    baseline: Build
    limits: Thresholds

    def compare(self) -> Comparison:
        self._require_same_model()
        self._require_same_images()
        differences = [difference for pair in self._rows() for difference in self._differences(*pair)]
        return Comparison(
            baseline=self.baseline.name,
            differences=differences,
            agreement=dict(self._agreement()),
            regressions=[*self._refused(), *self._sentences(differences, "regression")],
            doubts=self._sentences(differences, "doubtful"),
            obstacles=list(self._obstacles(differences)),
            notes=list(self._notes()),
            changes=list(self._changes()),
        )

    # What can be compared

    def _require_same_model(self) -> None:
        new, old = self.new.report.model, self.baseline.report.model
        if new.model_copy(update={"weights": ""}) != old.model_copy(update={"weights": ""}):
            raise UserError(
                f"{self.baseline.name} is a build of {_model_text(self.baseline)} and {self.new.name} of "
                f"{_model_text(self.new)}: name builds of one model"
            )

    def _require_same_images(self) -> None:
        if not self._same_images():
            new, old = self.new.report.data, self.baseline.report.data
            raise UserError(
                f"{self.baseline.name} was evaluated on other images ({old.evaluation_images} from {old.evaluation}) "
                f"than {self.new.name} ({new.evaluation_images} from {new.evaluation}): build one of them again"
            )

    def _same_images(self) -> bool:
        """By their fingerprints and labels; where predictions were not kept, by what the reports say of the images."""
        new, old = self.new.predictions, self.baseline.predictions
        if new and old:
            return new.images == old.images and np.array_equal(_labels(new), _labels(old))
        mine, theirs = self.new.report.data, self.baseline.report.data
        return (mine.evaluation, mine.evaluation_images) == (theirs.evaluation, theirs.evaluation_images)

    @property
    def _same_hardware(self) -> bool:
        return _hardware(self.new.report) == _hardware(self.baseline.report)

    def _rows(self) -> Iterator[tuple[Row, Row]]:
        """The original and every row to ship, where both builds have it."""
        for new in self.new.report.rows:
            old = self.baseline.report.row(new.id)
            if old and ((new.deployed and old.deployed) or new.id == self.new.report.baseline.id):
                yield new, old

    # Differences

    def _differences(self, new: Row, old: Row) -> Iterator[Difference]:
        yield from self._accuracy(new, old)
        yield from self._latency(new, old)
        yield from self._size(new, old)

    def _accuracy(self, new: Row, old: Row) -> Iterator[Difference]:
        if not (new.accuracy and old.accuracy):
            return
        pairs = self._pairs(new.id)
        interval = difference_interval(
            old.accuracy.top1,
            old.accuracy.interval,
            new.accuracy.top1,
            new.accuracy.interval,
            correlation(pairs) if pairs else 0.0,
        )
        p_value = mcnemar(pairs) if pairs else None
        loss = old.accuracy.top1 - new.accuracy.top1
        limit = self.limits.max_drop if new.deployed else None
        real = not _holds(interval, 0) if p_value is None else p_value < SIGNIFICANCE
        yield Difference(
            row=new.id,
            title=new.title,
            figure="top1",
            new=new.accuracy.top1,
            baseline=old.accuracy.top1,
            loss=loss,
            interval=interval,
            p_value=p_value,
            limit=limit,
            verdict=_verdict(loss, limit, real),
        )

    def _pairs(self, row: str) -> Pairs | None:
        """Which images the baseline got right, and which the new build."""
        new, old = self.new.predictions, self.baseline.predictions
        if not (new and old and new.labels is not None and row in new.rows and row in old.rows):
            return None
        ours, theirs = new.rows[row] == new.labels, old.rows[row] == new.labels
        counts = (theirs & ours, theirs & ~ours, ~theirs & ours, ~theirs & ~ours)
        return Pairs(*(int(found.sum()) for found in counts))

    def _latency(self, new: Row, old: Row) -> Iterator[Difference]:
        earlier = {latency.batch_size: latency for latency in old.latency}
        for latency in new.latency:
            other = earlier.get(latency.batch_size)
            if other and other.ratio_to == latency.ratio_to and latency.speedup and other.speedup:
                yield self._slowdown(new, latency, latency.speedup, other, other.speedup)

    def _slowdown(self, row: Row, new: Latency, speedup: float, old: Latency, old_speedup: float) -> Difference:
        loss, interval = 100 * (old_speedup / speedup - 1), None
        if new.speedup_interval and old.speedup_interval:
            low, high = ratio_interval(old_speedup, old.speedup_interval, speedup, new.speedup_interval)
            interval = 100 * (low - 1), 100 * (high - 1)
        judged = interval is not None and self._same_hardware
        limit = self.limits.max_slowdown if row.deployed and judged else None
        return Difference(
            row=row.id,
            title=row.title,
            figure="latency",
            batch_size=new.batch_size,
            new=speedup,
            baseline=old_speedup,
            new_ms=new.p50_ms,
            baseline_ms=old.p50_ms,
            loss=loss,
            interval=interval,
            limit=limit,
            verdict=_verdict(loss, limit, not _holds(interval, 0)) if interval and judged else "not judged",
        )

    def _size(self, new: Row, old: Row) -> Iterator[Difference]:
        if not (new.size_bytes and old.size_bytes):
            return
        loss = 100 * (new.size_bytes - old.size_bytes) / old.size_bytes
        limit = self.limits.max_growth if new.deployed else None
        yield Difference(
            row=new.id,
            title=new.title,
            figure="size",
            new=new.size_bytes,
            baseline=old.size_bytes,
            loss=loss,
            limit=limit,
            verdict=_verdict(loss, limit, real=loss != 0),
        )

    def _agreement(self) -> Iterator[tuple[str, float]]:
        new, old = self.new.predictions, self.baseline.predictions
        for row, _ in self._rows():
            if new and old and row.id in new.rows and row.id in old.rows:
                yield row.id, 100 * float(np.mean(new.rows[row.id] == old.rows[row.id]))

    # Sentences

    def _refused(self) -> Iterator[str]:
        """Compilers that took the baseline and refuse the new graph."""
        before = {target.name for target in self.baseline.report.targets if not target.failed}
        for target in self.new.report.targets:
            if target.failed and target.name in before:
                yield f"{target.name} compiles {self.baseline.name} and not {self.new.name}: {target.not_built}"

    def _sentences(self, differences: Sequence[Difference], verdict: Verdict) -> list[str]:
        return [sentence(difference, self.baseline.name) for difference in differences if difference.verdict == verdict]

    def _obstacles(self, differences: Sequence[Difference]) -> Iterator[str]:
        """Each threshold that was asked for and not applied to a row that the baseline would ship."""
        for option in self.limits.asked:
            figure = _OPTIONS[option]
            judged = {d.row for d in differences if d.figure == figure and d.limit is not None}
            missing = [row for row in self.baseline.report.deployed if row.id not in judged]
            reasons = [self._why_not(row, figure) for row in missing]
            if not self.baseline.report.deployed:
                reasons = [f"nothing to ship was run in {self.baseline.name}"]
            yield from (f"{option} cannot be judged: {reason}" for reason in dict.fromkeys(reasons))

    def _why_not(self, row: Row, figure: Figure) -> str:
        mine = self.new.report.row(row.id)
        if mine is None or (mine.not_run and figure != "size"):
            reason = mine.not_run if mine else "it was not asked for"
            return f"{row.title} was run in {self.baseline.name} and not in {self.new.name} ({reason})"
        if figure == "latency" and not self._same_hardware:
            return f"other hardware, {_hardware_text(self.new)} instead of {_hardware_text(self.baseline)}"
        reasons: dict[Figure, str] = {
            "top1": f"{row.title} has no accuracy in both; evaluate on images with classes",
            "latency": f"{row.title} has no latency with its interval in both; build the older one again",
            "size": f"{row.title} has no file in both",
        }
        return reasons[figure]

    def _notes(self) -> Iterator[str]:
        if not self._same_hardware:
            yield f"{self.baseline.name} was measured on other hardware, so latency is shown and not judged"
        absent = [build.name for build in (self.new, self.baseline) if build.predictions is None]
        if absent and self.new.report.data.labelled:
            yield f"{' and '.join(absent)}: no predictions were kept, so accuracy is judged less sharply, unpaired"

    def _changes(self) -> Iterator[Change]:
        new, old = _facts(self.new.report), _facts(self.baseline.report)
        for name in dict.fromkeys((*new, *old)):
            if new.get(name) != old.get(name):
                yield Change(name=name, new=new.get(name, "none"), baseline=old.get(name, "none"))


def _verdict(loss: float, limit: float | None, real: bool) -> Verdict:
    if limit is not None and loss > limit + _ROUNDING:
        return "regression" if real else "doubtful"
    if not real:
        return "same"
    return "worse" if loss > 0 else "better"


def _holds(interval: Interval, value: float) -> bool:
    return interval[0] <= value <= interval[1]


def _labels(predictions: Predictions) -> Any:
    return () if predictions.labels is None else predictions.labels


def _model_text(build: Build) -> str:
    model = build.report.model
    size = "×".join(map(str, model.input_shape))
    return f"{model.name} ({size} inputs, {model.classes} classes, {model.parameters} parameters)"


def _hardware(report: Report) -> tuple[str, int, str | None]:
    return report.environment.cpu, report.environment.cores, report.environment.gpu


def _hardware_text(build: Build) -> str:
    cpu, cores, gpu = _hardware(build.report)
    return f"{gpu or cpu}, {cores} cores"


def _facts(report: Report) -> dict[str, str]:
    """What may differ between two builds of one model on the same images."""
    machine, data = report.environment, report.data
    return {
        "weights": report.model.weights,
        "calibration": f"{data.calibration_images} images, {data.calibration}",
        "seed": str(report.seed),
        **{f"recipe: {name}": value for name, value in _flat(report.recipe)},
        "processor": machine.cpu,
        "cores": str(machine.cores),
        "GPU": machine.gpu or "none",
        "driver": machine.driver or "none",
        "system": machine.platform,
        "Python": machine.python,
        **machine.packages,
    }


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
