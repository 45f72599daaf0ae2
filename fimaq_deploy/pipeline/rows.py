"""What was measured of every way to run a model, as the records that a report holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fimaq_deploy.measure.accuracy import Evaluation, Predict
from fimaq_deploy.measure.own import OwnFigures
from fimaq_deploy.measure.resampling import Measured
from fimaq_deploy.measure.tasks import Figure, Tasks
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import Key, Predictions


@dataclass(frozen=True)
class Candidate:
    """One way to run the model. The first one of several is the original that all are compared with.

    run: None where it cannot be run here, and `not_run` says why.
    compared_to: the id of an earlier candidate that it should agree with.
    deployed: whether this is what a user would ship.
    original: whether it is the model before quantization, so that no recipe changes what it does.
    """

    id: str
    title: str
    run: Predict | None
    compared_to: str | None = None
    file: Path | None = None
    deployed: bool = False
    not_run: str | None = None
    original: bool = False


@dataclass(frozen=True, eq=False)
class Done:
    """What a candidate did, measured against the original and against its neighbour."""

    original: Evaluation
    neighbour: Evaluation


def to_row(candidate: Candidate, original: str, done: Done | None, own: OwnFigures) -> schema.Row:
    """The row of a candidate. original: the id that all are compared with; done: None where it did not run."""
    row = schema.Row(
        id=candidate.id,
        title=candidate.title,
        deployed=candidate.deployed,
        not_run=candidate.not_run,
        file=candidate.file.name if candidate.file else None,
        size_bytes=candidate.file.stat().st_size if candidate.file and candidate.file.is_file() else None,
    )
    if done is None:
        return row
    measured = {
        "accuracy": _accuracy(done.original),
        "comparison": _comparison(candidate.compared_to, done.neighbour),
        "original": _comparison(original if candidate.id != original else None, done.original),
        "labelled": _figures(one for one in done.original.figures if one.figure.of == "labels"),
        "own": [schema.Figure(name=name, value=value) for name, value in own.items()],
        "not_finite": done.original.not_finite,
    }
    return row.model_copy(update=measured)


def to_outputs(
    tasks: Tasks, shapes: Mapping[str, tuple[int, ...]], evaluations: Sequence[Evaluation]
) -> list[schema.Output]:
    """What the figures of every output mean, of those that were measured. shapes: without the images' axis."""
    measured = {(one.output, one.figure.name) for each in evaluations for one in each.figures}
    return [
        schema.Output(
            name=name,
            task=task.kind,
            shape=list(shapes[name]),
            figures=[_meaning(figure) for figure in task.figures if (name, figure.name) in measured],
        )
        for name, task in tasks.items()
    ]


def to_predictions(images: str, evaluations: Mapping[str, Evaluation]) -> Predictions:
    """What later builds are compared with. images: their fingerprint."""
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
    )


def _kept(evaluation: Evaluation) -> list[Measured]:
    """The figures that builds are judged by."""
    return [one for one in evaluation.figures if one.figure.headline or one.figure.gate]


def _meaning(figure: Figure) -> schema.Meaning:
    names = ("name", "title", "told", "unit", "of", "higher_is_better", "headline", "column", "gate", "floor")
    return schema.Meaning(**{name: getattr(figure, name) for name in names})


def _figures(measured: Iterable[Measured]) -> list[schema.Figure]:
    return [
        schema.Figure(output=one.output, name=one.figure.name, value=one.value, interval=one.interval)
        for one in measured
    ]


def _accuracy(own: Evaluation) -> schema.Accuracy | None:
    if own.top1 is None or own.interval is None:
        return None
    return schema.Accuracy(
        images=own.images, top1=own.top1, top5=own.top5, interval=own.interval, not_finite=own.not_finite
    )


def _comparison(to: str | None, own: Evaluation) -> schema.Comparison | None:
    """Agreement in the sense of one answer an image, which only classes have."""
    if to is None or own.largest_difference is None:
        return None
    main = next(iter(own.tasks.values()))
    return schema.Comparison(
        to=to,
        agreement=own.value("agreement") if main.kind == "classes" else None,
        largest_difference=own.largest_difference,
        figures=_figures(one for one in own.figures if one.figure.of == "original"),
    )
