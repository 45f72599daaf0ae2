"""Every way to run a model, from the PyTorch original to a compiled engine, measured on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.engines import Runner
from fimaq_deploy.measure.accuracy import Accuracy, Predict, agreement, evaluate, largest_difference
from fimaq_deploy.measure.latency import compare_latency
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import Predictions, fingerprint


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

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


@dataclass
class Originals:
    """What the original of one model did on one set of images, so that builds with other recipes need not repeat it.

    images: the fingerprint of the images. onnx: its exported file.
    """

    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    images: str | None = None
    onnx: Path | None = None


def measure_accuracy(
    candidates: Sequence[Candidate],
    images: ImageSource,
    progress: Callable[[int, int, str], None],
    originals: Originals | None = None,
) -> tuple[list[schema.Row], Predictions]:
    """Run every candidate on all images; a row for each, in their order, and what each predicted.

    progress: called with the number of candidates done, their number and the next one's title.
    originals: what is known already, and where the rest is added.
    """
    kept = originals or Originals()
    found: dict[str, Accuracy] = {}
    rows = []
    for number, candidate in enumerate(candidates):
        progress(number, len(candidates), candidate.title)
        if candidate.run is not None:
            found[candidate.id] = kept.accuracy.get(candidate.id) or evaluate(candidate.run, images, keep_logits=True)
        if candidate.original and candidate.run is not None:
            kept.accuracy[candidate.id] = found[candidate.id]
        rows.append(_row(candidate, found))
    kept.images = kept.images or fingerprint(batch.numpy() for batch in images)
    return rows, _predictions(kept.images, found)


def measure_latency(runners: Mapping[str, Runner], **settings: Any) -> dict[str, list[schema.Latency]]:
    """Latencies by row id, all measured in one run, in turns; every speed-up is over the first runner.

    settings: of `compare_latency`.
    """
    first = next(iter(runners))
    found: dict[str, list[schema.Latency]] = {name: [] for name in runners}
    for latency in compare_latency(runners, **settings):
        facts = {key: value for key, value in asdict(latency).items() if key != "name"}
        paired = {"ratio_to": first} if latency.name != first else {"speedup": None, "speedup_interval": None}
        found[latency.name].append(schema.Latency(**{**facts, **paired}))
    return found


def with_latency(rows: Iterable[schema.Row], latency: dict[str, list[schema.Latency]]) -> list[schema.Row]:
    """The rows with the latencies that were measured for their ids."""
    return [row.model_copy(update={"latency": latency.get(row.id, [])}) for row in rows]


def _predictions(images: str, found: Mapping[str, Accuracy]) -> Predictions:
    labels = next((own.labels for own in found.values() if own.labels is not None), None)
    rows = {row_id: own.predictions.astype(np.int32) for row_id, own in found.items()}
    return Predictions(images, rows, None if labels is None else labels.astype(np.int32))


def _row(candidate: Candidate, found: dict[str, Accuracy]) -> schema.Row:
    own = found.get(candidate.id)
    other = found.get(candidate.compared_to or "")
    return schema.Row(
        id=candidate.id,
        title=candidate.title,
        deployed=candidate.deployed,
        not_run=candidate.not_run,
        accuracy=_accuracy(own) if own else None,
        comparison=_comparison(candidate.compared_to or "", own, other) if own and other else None,
        file=candidate.file.name if candidate.file else None,
        size_bytes=candidate.file.stat().st_size if candidate.file and candidate.file.is_file() else None,
    )


def _accuracy(own: Accuracy) -> schema.Accuracy | None:
    if own.top1 is None or own.interval is None:
        return None
    return schema.Accuracy(
        images=own.images, top1=own.top1, top5=own.top5, interval=own.interval, not_finite=own.not_finite
    )


def _comparison(to: str, own: Accuracy, other: Accuracy) -> schema.Comparison:
    assert own.logits is not None
    assert other.logits is not None
    return schema.Comparison(
        to=to,
        agreement=agreement(own.predictions, other.predictions),
        largest_difference=largest_difference(own.logits, other.logits),
    )
