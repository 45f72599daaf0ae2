"""What a bank of labelled images tells of an encoder's vectors, besides what the task itself measures.

Of embeddings, what DINO is evaluated by: the vote of the 20 nearest images of the bank. Once with the bank embedded by
the model that is measured, as where a gallery is made anew, and once with the original's, as where it is kept. A linear
probe is fitted once, to the original's vectors, and then reads those of every model: whether heads that were trained on
the original can be kept. Of patches and maps the same with a class for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fimaq_deploy.measure.tasks.labelled_maps import are_classes, mean_iou, overlaps, refuse_unfitting
from fimaq_deploy.measure.tasks.patches import on_grid
from fimaq_deploy.measure.tasks.probes import NOBODY, Bank, Linear
from fimaq_deploy.measure.tasks.task import Array, Figure, Task

_COLUMNS = ("cosine", "worst", "nearest")
_OWN = ("knn", "knn20", "probe", "miou", "mae")  # of the images among themselves, which a bank replaces


def embedding_with_bank(task: Task, original: Bank, own: Bank) -> Task:
    """original, own: the bank as the original embeds it, and as the model does that is measured."""

    def right(answer: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
        return lambda vectors, labels: answer(vectors) == labels

    def alike(vectors: Array, reference: Array) -> Array:
        found = own.voted(vectors)
        return (found == original.voted(reference)) & (found != NOBODY)

    def share(name: str, title: str, told: str, answer: Callable[[Array], Array], **more: Any) -> Figure:
        return Figure(
            name=name,
            title=title,
            told=told,
            of="labels",
            parts=right(answer),
            unit="%",
            share=True,
            column=True,
            **more,
        )

    found = (
        share("bank_knn", "k-NN", "{value} right by 20 neighbours in the bank", own.voted, headline=True),
        share("bank_probe", "probe", "{value} right by the original's probe", original.probed, drop="build"),
        share("kept_knn", "k-NN, bank kept", "{value} right by 20 neighbours in the original's bank", original.voted),
        _agreement("{value} of votes as {other}", alike, share=True),
    )
    return _without_others(task, found)


def dense_with_bank(task: Task, probe: Linear) -> Task:
    """probe: fitted to the original's vectors of the bank. Its classes are 0 to as many as it has scores."""
    classes = len(probe.offset)

    def of_labels(vectors: Array, labels: Array) -> Array:
        return overlaps(_scores(on_grid(vectors, labels.shape[1:]), probe), labels)

    def alike(vectors: Array, reference: Array) -> Array:
        same = _classes(vectors, probe) == _classes(reference, probe)
        return (same & np.isfinite(vectors).all(-1)).reshape(len(vectors), -1).mean(1)

    def refuse(vectors: Array, labels: Array) -> str | None:
        return refuse_unfitting(labels, classes, "bank shows")

    miou = Figure(
        name="bank_miou",
        title="probe mIoU",
        told="{value} mIoU by the original's probe",
        of="labels",
        parts=of_labels,
        value=mean_iou,
        unit="%",
        headline=True,
        column=True,
        applies=are_classes,
    )
    found = (miou, _agreement("{value} of positions with the probe's class as {other}", alike))
    return replace(_without_others(task, found), refuse_labels=refuse)


def _agreement(told: str, alike: Callable[[Array, Array], Array], share: bool = False) -> Figure:
    return Figure(
        name="bank_agreement",
        title="agree",
        told=told,
        of="original",
        parts=alike,
        unit="%",
        share=share,
        gate="agreement",
        column=True,
    )


def _without_others(task: Task, found: tuple[Figure, ...]) -> Task:
    """With these figures in front, which the table then has. What a bank says is what --min-agreement is about."""
    rest = (replace(one, column=one.name in _COLUMNS) for one in task.figures if one.name not in _OWN)
    free = (replace(one, gate=None) if one.gate == "agreement" else one for one in rest)
    return replace(task, figures=(*found, *free))


def _scores(vectors: Array, probe: Linear) -> Array:
    return probe(vectors.reshape(-1, vectors.shape[-1])).reshape(*vectors.shape[:-1], -1)


def _classes(vectors: Array, probe: Linear) -> Array:
    return _scores(vectors, probe).argmax(-1)
