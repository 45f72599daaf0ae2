"""A build against earlier ones of the same model, every difference judged with its uncertainty.

A regression is a loss that is beyond its threshold and that chance does not explain:

- the figures against labels, such as AP of boxes and of masks, or the user's own: image by image where both builds kept
  what they did (exact McNemar test of top-1, else the paired bootstrap), else from the two intervals;
- latency: the speed-up over full precision, which each build measured in turns with it in one run, so that two machines
  of the same kind compare even when one is busier; the interval is of what varies within the runs;
- size: exact.

A new build that is plainly ruined, or farther from its own original than it may be, is broken whatever it is compared
with. Only rows that a user would ship are held to thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fimaq_deploy.errors import UserError
from fimaq_deploy.report.comparison.answers import answer_differences
from fimaq_deploy.report.comparison.builds import Build, load_build
from fimaq_deploy.report.comparison.costs import latency_differences, size_differences
from fimaq_deploy.report.comparison.obstacles import notes, obstacles
from fimaq_deploy.report.comparison.records import Comparison, Difference, Judgement, Thresholds, Verdict
from fimaq_deploy.report.comparison.sameness import changes, require_comparable, same_hardware
from fimaq_deploy.report.comparison.words import sentence
from fimaq_deploy.report.figures import held
from fimaq_deploy.report.gates import closeness_failures, ruins
from fimaq_deploy.report.schema import Report, Row

__all__ = ["Build", "compare", "load_build"]


def compare(
    new: Build | str | Path,
    baselines: Sequence[Build | str | Path] | Build | str | Path,
    thresholds: Thresholds | None = None,
    *,
    max_drop: float | None = None,
    max_slowdown: float | None = None,
    max_growth: float | None = None,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
) -> Judgement:
    """Judge `new` against each baseline. Builds are given by their folders or report.json, or as `load_build` has them.

    max_drop: of each figure against labels, such as points of top-1 or of AP, or of the user's own. max_slowdown,
        max_growth: percent of time, relative to full precision, and of file size. min_agreement, min_cosine: of `new`
        with its own original.
    thresholds: the same in one value, in place of them.

    Raises:
        UserError: a threshold is no number that can be meant, or builds cannot be read, are of different models or were
            evaluated on different images.
    """
    limits = thresholds or Thresholds(
        max_drop=max_drop,
        max_slowdown=max_slowdown,
        max_growth=max_growth,
        min_agreement=min_agreement,
        min_cosine=min_cosine,
    )
    given = [baselines] if isinstance(baselines, (Build, str, Path)) else baselines
    if not given:
        raise UserError("nothing to compare with: name at least one build as a baseline")
    ours = _loaded(new)
    return Judgement(
        new=ours.name,
        created=ours.report.created,
        model=ours.report.model.name,
        thresholds=limits,
        broken=_broken(ours.report, limits),
        comparisons=[_Pair(ours, _loaded(baseline), limits).compare() for baseline in given],
    )


def _loaded(build: Build | str | Path) -> Build:
    return build if isinstance(build, Build) else load_build(build)


def _broken(report: Report, limits: Thresholds) -> list[str]:
    """Which rows to ship are too far from the original, as sentences."""
    asked = {name: getattr(limits, name) for name in ("min_agreement", "min_cosine")}
    strict = report.model_copy(update=asked)
    free = report.model_copy(update={name: value for name, value in asked.items() if value is not None})
    found = [text for row in report.deployed for text in (*closeness_failures(strict, row), *ruins(free, row))]
    lost = [row for row in report.deployed if any(one.value is None for one in held(report, row, "comparison"))]
    return [
        *found,
        *(f"{row.title}: what --max-drop is about is not finite" for row in lost if limits.max_drop is not None),
    ]


@dataclass(frozen=True)
class _Pair:
    """The new build and one baseline."""

    new: Build
    baseline: Build
    limits: Thresholds

    def compare(self) -> Comparison:
        require_comparable(self.new, self.baseline)
        differences = [difference for pair in self._rows() for difference in self._differences(*pair)]
        return Comparison(
            baseline=self.baseline.name,
            differences=differences,
            agreement=dict(self._agreement()),
            regressions=[*self._refused(), *self._sentences(differences, "regression")],
            doubts=self._sentences(differences, "doubtful"),
            obstacles=list(obstacles(self.new, self.baseline, self.limits, differences)),
            notes=list(notes(self.new, self.baseline)),
            changes=list(changes(self.new, self.baseline)),
        )

    def _rows(self) -> Iterator[tuple[Row, Row]]:
        """The original and every row to ship, where both builds have it."""
        for new in self.new.report.rows:
            old = self.baseline.report.row(new.id)
            if old and ((new.deployed and old.deployed) or new.id == self.new.report.baseline.id):
                yield new, old

    def _differences(self, new: Row, old: Row) -> Iterator[Difference]:
        limits = self.limits if new.deployed else Thresholds()
        yield from answer_differences(self.new, self.baseline, (new, old), limits.max_drop)
        yield from latency_differences(new, old, limits.max_slowdown, same_hardware(self.new, self.baseline))
        yield from size_differences(new, old, limits.max_growth)

    def _agreement(self) -> Iterator[tuple[str, float]]:
        new, old = self.new.predictions, self.baseline.predictions
        for row, _ in self._rows():
            if new and old and row.id in new.rows and row.id in old.rows:
                yield row.id, 100 * float(np.mean(new.rows[row.id] == old.rows[row.id]))

    def _refused(self) -> Iterator[str]:
        """Compilers that took the baseline and refuse the new graph."""
        before = {target.name for target in self.baseline.report.targets if not target.failed}
        for target in self.new.report.targets:
            if target.failed and target.name in before:
                yield f"{target.name} compiles {self.baseline.name} and not {self.new.name}: {target.not_built}"

    def _sentences(self, differences: Sequence[Difference], verdict: Verdict) -> list[str]:
        return [sentence(difference, self.baseline.name) for difference in differences if difference.verdict == verdict]
