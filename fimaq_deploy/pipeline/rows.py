"""The ways to run a model that a build measures, and what later builds are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fimaq_deploy.measure.accuracy import Evaluation, Predict
from fimaq_deploy.measure.resampling import Measured
from fimaq_deploy.report.predictions import Key, Predictions


@dataclass(frozen=True)
class Candidate:
    """One way to run the model. The first one of several is the original that all are compared with.

    run: None where it cannot be run here, and `not_run` says why.
    compared_to: the id of an earlier candidate that it should agree with.
    deployed: whether this is what a user would ship.
    original: whether it is the model before quantization, so that no recipe changes what it does.
    behind: a second file, which is run behind `file`.
    """

    id: str
    title: str
    run: Predict | None
    compared_to: str | None = None
    file: Path | None = None
    deployed: bool = False
    not_run: str | None = None
    original: bool = False
    behind: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(one for one in (self.file, self.behind) if one is not None)


@dataclass(frozen=True, eq=False)
class Done:
    """What a candidate did, measured against the original and against its neighbour."""

    original: Evaluation
    neighbour: Evaluation


def to_predictions(images: str, truth: str, evaluations: Mapping[str, Evaluation]) -> Predictions:
    """What later builds are compared with. images, truth: the fingerprints of the images and of their labels."""
    labels = next((each.labels for each in evaluations.values() if each.labels is not None), None)
    kept = {Key(row, one.output, one.figure.name): one for row, each in evaluations.items() for one in _kept(each)}
    return Predictions(
        images=images,
        rows={
            row: each.predictions.astype(np.int32) for row, each in evaluations.items() if each.predictions is not None
        },
        labels=labels,
        means={key: one.images for key, one in kept.items() if one.images is not None},
        resamples={key: one.replicates for key, one in kept.items() if one.replicates is not None},
        truth=truth,
    )


def _kept(evaluation: Evaluation) -> list[Measured]:
    """The figures that builds are judged by."""
    return [one for one in evaluation.figures if one.figure.headline or one.figure.gate or one.figure.drop]
