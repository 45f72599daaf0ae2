"""Every way to run a model, from the PyTorch original to a compiled engine, measured on the same images.

All of them see a batch before the next one is read: images are decoded once, and no more outputs are in memory than
those of one batch. Each is compared with the original, which the verdict rests on, and with its neighbour in the chain,
which tells where a difference came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.accuracy import Pass, labels_of
from fimaq_deploy.measure.outputs import Outputs, named_like, running
from fimaq_deploy.measure.own import OwnFigures, name_of, own_figures
from fimaq_deploy.measure.tasks import Figure, Tasks
from fimaq_deploy.pipeline.findings import to_outputs, to_row
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.pictures import Glance, glance
from fimaq_deploy.pipeline.rows import Candidate, Done, to_predictions
from fimaq_deploy.pipeline.spread import Spread
from fimaq_deploy.pipeline.steps import Counter
from fimaq_deploy.report import schema
from fimaq_deploy.report.predictions import Fingerprint, LabelFingerprint, Predictions

BATCH = 32  # images that all run before the next ones are read, or as many pixels
SAMPLE = 64  # images of all that are looked at once more
_REMEMBERED_BYTES = 2**28  # outputs of an original, so that a sweep runs it once

Run = Callable[[Tensor], Outputs]


@dataclass
class Originals:
    """What the original of one model did on one set of images, so that builds with other recipes need not repeat it.

    outputs: of each batch, by row id, as far as they are small. onnx: its exported file.
    """

    outputs: dict[str, list[Outputs]] = field(default_factory=dict)
    own: dict[str, OwnFigures] = field(default_factory=dict)
    onnx: Path | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What came of it. glance: at the first images. sample: some of all. notes: what a reader should know."""

    rows: list[schema.Row]
    outputs: list[schema.Output]
    predictions: Predictions
    notes: tuple[str, ...]
    glance: Glance | None = None
    sample: Tensor | None = None


def measure_rows(
    candidates: Sequence[Candidate],
    images: ImageSource,
    measures: Measures,
    progress: Counter,
    originals: Originals | None = None,
) -> Found:
    """Run every candidate on all images; a row for each, in their order, and what each did with each image.

    progress: called with the number of images done, how many there are (0 where unknown), and what is being done.
    originals: what is known already, and where the rest is added.

    Raises:
        UserError: a candidate has other outputs than the original, or a label is not one of the classes.
    """
    passes, digests, seen, sample = _pass_over(candidates, images, measures, progress, originals)
    done = {name: Done(each.original.finish(), each.neighbour.finish()) for name, each in passes.items()}
    own = _own_figures(candidates, measures, progress, originals)
    first = candidates[0].id
    return Found(
        rows=[to_row(one, first, done.get(one.id), own.get(one.id, {}), done.get(first)) for one in candidates],
        outputs=to_outputs(measures.tasks, passes[first].shapes, [each.original for each in done.values()]),
        predictions=to_predictions(*digests, {name: each.original for name, each in done.items()}),
        notes=done[first].original.notes,
        glance=seen,
        sample=sample,
    )


class _Passes:
    """The passes of one candidate: against the original, and against its neighbour."""

    def __init__(self, tasks: Tasks) -> None:
        self.original, self.neighbour = Pass(tasks), Pass(tasks, only=_is_telling)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def add(self, own: Outputs, original: Outputs | None, neighbour: Outputs | None, labels: Any) -> None:
        self.shapes = self.shapes or {name: array.shape[1:] for name, array in own.items()}
        self.original.add(own, original, labels)
        self.neighbour.add(own, neighbour)


def _is_telling(figure: Figure) -> bool:
    """What is measured against a neighbour."""
    return figure.headline


def _pass_over(
    candidates: Sequence[Candidate], images: ImageSource, measures: Measures, progress: Counter, kept: Originals | None
) -> tuple[dict[str, _Passes], tuple[str, str], Glance | None, Tensor]:
    """What every candidate that runs did, the fingerprints of the images and of their labels, a glance at the first
    ones, some of all.
    """
    running_ones = [candidate for candidate in candidates if candidate.run is not None]
    tasks, passes = measures.tasks, _passes(running_ones, candidates[0], measures, progress)
    digest, truth, done, first_seen, spread = Fingerprint(), LabelFingerprint(), 0, None, Spread(SAMPLE)
    with ExitStack() as stack:
        runs = {one.id: stack.enter_context(_remembered(one, kept)) for one in running_ones}
        if measures.bank is not None:
            digest.add(np.frombuffer(measures.bank.digest.encode(), np.uint8).astype(np.float32))
        for batch in images.batches(images_at_once(images.take(1).shape, BATCH)):
            progress(done, images.count or 0, f"{len(runs)} ways to run it")
            digest.add(batch.images.numpy())
            truth.add(labels_of(batch))
            spread.add(batch.images)
            seen: dict[str, Outputs] = {}
            for one in running_ones:
                seen[one.id] = named_like(runs[one.id](batch.images), tasks, one.title)
                first = seen[candidates[0].id] if one is not candidates[0] else None
                passes[one.id].add(seen[one.id], first, seen.get(one.compared_to or ""), labels_of(batch))
            first_seen = first_seen or glance(batch.images, seen, tasks)
            done += len(batch.images)
    return passes, (str(digest), str(truth)), first_seen, spread.images


def _passes(
    candidates: Sequence[Candidate], first: Candidate, measures: Measures, progress: Counter
) -> dict[str, _Passes]:
    """One for each candidate, that has seen the bank where there is one. The original has already."""
    found: dict[str, _Passes] = {}
    for number, one in enumerate(candidates):
        assert one.run is not None
        if measures.bank is not None:
            progress(number, len(candidates), f"{one.title}: the bank")
        found[one.id] = _Passes(measures.tasks if one is first else measures.of(one.run, one.title))
    return found


@contextmanager
def _remembered(candidate: Candidate, kept: Originals | None) -> Iterator[Run]:
    """What runs a candidate; of an original, what is known of it already, or is remembered for the next build."""
    assert candidate.run is not None
    known = kept.outputs.get(candidate.id) if kept else None
    if known is not None:
        batches = iter(known)
        yield lambda images: next(batches)
        return
    with running(candidate.run) as run:
        if kept is None or not candidate.original:
            yield run
            return
        memory = _Memory()
        yield lambda images: memory.add(run(images))
    if memory.batches is not None:
        kept.outputs[candidate.id] = memory.batches


@dataclass
class _Memory:
    """Outputs of one batch after the other; nothing once they are many."""

    batches: list[Outputs] | None = field(default_factory=list)
    size_bytes: int = 0

    def add(self, outputs: Outputs) -> Outputs:
        self.size_bytes += sum(array.nbytes for array in outputs.values())
        if self.batches is not None:
            self.batches.append(outputs)
        if self.size_bytes > _REMEMBERED_BYTES:
            self.batches = None
        return outputs


def _own_figures(
    candidates: Sequence[Candidate], measures: Measures, progress: Counter, kept: Originals | None
) -> dict[str, OwnFigures]:
    """What the user's function says of every candidate that runs."""
    found: dict[str, OwnFigures] = {}
    for number, one in enumerate(candidates):
        if measures.own is None or one.run is None:
            continue
        progress(number, len(candidates), f"{one.title}: {name_of(measures.own)}")
        known = kept.own.get(one.id) if kept else None
        found[one.id] = known or own_figures(measures.own, one.run)
        if kept and one.original:
            kept.own[one.id] = found[one.id]
        if set(found[one.id]) != set(found[candidates[0].id]):
            raise UserError(f"{name_of(measures.own)} returned other figures for {one.title} than for the original")
    return found
