"""Objects (N, objects, 6 or more), as `data.objects` packs boxes, scores, labels and masks: COCO's average precision.

A found object is right at a threshold if it overlaps a true one of its label by so much that no better found one took;
precision is averaged over 101 recalls, then over ten thresholds from 0.5 to 0.95 and over labels. Overlaps are those
of boxes, or of masks. The numbers are those of COCO's own evaluation, of objects of all sizes and whole answers.
T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; https://cocodataset.org/#detection-eval.

Without labels: of the objects that the model or the original is sure of, the share that both have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.data.objects import box_overlaps, has_masks, labels_of, mask_overlaps, scores_of
from fimaq_deploy.measure.tasks.task import Array, Figure, Task

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
SURE = 0.5
"""The score from which on an object counts as found where nobody says what is true."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_HALF = (0.5,)
_WRONG, _RIGHT, _NEITHER = 0, 1, -1

Overlaps = Callable[..., Array]


def matches(found: Array, true: Array, thresholds: tuple[float, ...], overlaps: Overlaps) -> Array:
    """(found, thresholds) of one image: 1 where a found object is right, 0 where not, -1 where it lies in a crowd.

    The surest goes first; the last of several true ones that it overlaps equally is taken, as COCO's code does.
    """
    crowd = scores_of(true) <= 0
    overlap = overlaps(found, true, crowd)
    overlap = np.where(labels_of(found)[:, None] == labels_of(true), overlap, -1.0)
    limits = np.minimum(np.array(thresholds), 1 - 1e-10)
    taken = np.zeros((len(limits), len(true)), bool)
    result = np.full((len(found), len(limits)), _WRONG, np.int8)
    for one in np.argsort(-scores_of(found), kind="stable"):
        free = np.where(taken | crowd, -1.0, overlap[one])
        best = free.shape[1] - 1 - free[:, ::-1].argmax(1) if len(true) else np.zeros(len(limits), np.int64)
        hit = free[np.arange(len(limits)), best] >= limits if len(true) else np.zeros(len(limits), bool)
        taken[np.flatnonzero(hit), best[hit]] = True
        in_crowd = (overlap[one][crowd].max(initial=-1.0) >= limits) & ~hit
        result[one] = np.where(hit, _RIGHT, np.where(in_crowd, _NEITHER, _WRONG))
    return result


def _judged(thresholds: tuple[float, ...], overlaps: Overlaps) -> Callable[[Array, Array], Array]:
    """(images, places, 3 + thresholds): whether a place is of a true object, its label, its score and `matches`."""

    def parts(own: Array, labels: Array) -> Array:
        count = own.shape[1]
        result = np.zeros((len(own), count + labels.shape[1], 3 + len(thresholds)), np.float32)
        result[:, count:, 0] = 1
        result[:, :count, 1], result[:, count:, 1] = labels_of(own), _counted(labels)
        result[:, :count, 2] = np.nan_to_num(scores_of(own))
        for answer, truth, place in zip(own, labels, result, strict=True):
            some, real = labels_of(answer) >= 0, labels_of(truth) >= 0
            place[:count][some, 3:] = matches(answer[some], truth[real], thresholds, overlaps)
        return result

    return parts


def _counted(labels: Array) -> NDArray[np.int64]:
    """The label of each true object that is to be found, -1 for crowds and empty places."""
    return np.where(scores_of(labels) > 0, labels_of(labels), -1)


@dataclass(frozen=True, eq=False)
class _Label:
    """All found objects of a label, the surest first: their images, and whether they are right (thresholds, found).

    true: (images,) how many there are to be found.
    """

    images: NDArray[np.int64]
    right: Array
    wrong: Array
    true: Array


def _by_label(parts: Array) -> list[_Label]:
    is_true, labels = parts[..., 0] > 0, parts[..., 1].astype(np.int64)
    result = []
    for label in np.unique(labels[is_true & (labels >= 0)]):
        images, places = np.nonzero(~is_true & (labels == label))
        order = np.argsort(-parts[images, places, 2], kind="stable")
        images, places = images[order], places[order]
        flags = parts[images, places, 3:].T
        true = (is_true & (labels == label)).sum(1).astype(np.float64)
        result.append(_Label(images, flags == _RIGHT, flags == _WRONG, true))
    return result


def average_precision(state: list[_Label], weights: Array) -> float:
    """Over the labels that are in the images drawn; not a number where there is none."""
    found = [_precision(one, weights) for one in state if weights @ one.true > 0]
    return float(np.mean(found)) if found else float("nan")


def _precision(one: _Label, weights: Array) -> float:
    drawn = weights[one.images]
    right, wrong = (drawn * one.right).cumsum(1), (drawn * one.wrong).cumsum(1)
    recall = right / (weights @ one.true)
    precision = right / (right + wrong + np.spacing(1.0))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([best, np.zeros((len(best), 1))], 1)
    return float(
        np.mean([row[np.searchsorted(reached, _RECALLS)] for row, reached in zip(padded, recall, strict=True)])
    )


def _shared(own: Array, original: Array) -> Array:
    """(images, 2): the objects that both are sure of, twice, and those of either."""
    return np.array([_shared_in(*pair) for pair in zip(own, original, strict=True)], np.float64)


def _shared_in(own: Array, original: Array) -> tuple[float, float]:
    mine, theirs = (each[(labels_of(each) >= 0) & (scores_of(each) >= SURE)] for each in (own, original))
    both = matches(mine, theirs, (0.5,), box_overlaps).sum()
    return 2.0 * float(both), float(len(mine) + len(theirs))


def _agreement(shared: Array, weights: Array) -> float:
    both, either = weights @ shared
    return float(both / either) if either else 1.0


def _have_masks(own: Array, labels: Array) -> bool:
    return has_masks(own) and own.shape[-1] == labels.shape[-1]


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if labels.ndim != 3 or labels.shape[-1] < 6:
        return f"labels are {labels.dtype} {labels.shape}: expected the objects of each image, with boxes and labels"
    return None


def _precision_figure(name: str, title: str, told: str, overlaps: Overlaps, **options: Any) -> Figure:
    thresholds = options.pop("thresholds", THRESHOLDS)
    return Figure(
        name=name,
        title=title,
        told=told,
        of="labels",
        parts=_judged(thresholds, overlaps),
        state=_by_label,
        value=average_precision,
        unit="%",
        column=True,
        **options,
    )


def _told(what: str) -> str:
    return f"{{value}} {what} AP at an overlap of 50 %"


# Below the floor half of what the original is sure of is lost, or as much is made up.
DETECTION = Task(
    kind="detection",
    fits=lambda shape: len(shape) == 3 and shape[2] >= 6,
    expected="(N, objects, 6 or more): boxes, scores, labels and masks as `data.objects` packs them",
    figures=(
        _precision_figure("ap", "box AP", "{value} box AP", box_overlaps, headline=True),
        _precision_figure("ap50", "box AP50", _told("box"), box_overlaps, thresholds=_HALF, drop="comparison"),
        _precision_figure("mask_ap", "mask AP", "{value} mask AP", mask_overlaps, applies=_have_masks, drop="build"),
        _precision_figure(
            "mask_ap50",
            "mask AP50",
            _told("mask"),
            mask_overlaps,
            thresholds=_HALF,
            applies=_have_masks,
            drop="comparison",
        ),
        Figure(
            name="agreement",
            title="agree",
            told="{value} of objects as {other}",
            of="original",
            parts=_shared,
            value=_agreement,
            unit="%",
            gate="agreement",
            floor=50.0,
            headline=True,
            column=True,
        ),
    ),
    refuse_labels=_refuse_labels,
)
