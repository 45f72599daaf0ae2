"""Maps of classes beside maps of scores: the overlap of each class, and the mean IoU of all."""

from __future__ import annotations

import numpy as np
import torch

from fimaq_deploy.measure.tasks.task import Array

IGNORED = 255  # what label maps hold where nobody said


def are_classes(maps: Array, labels: Array) -> bool:
    """Whether the labels are maps of classes."""
    return np.issubdtype(labels.dtype, np.integer) and maps.shape[-1] > 1


def overlaps(maps: Array, labels: Array) -> Array:
    """(images, 2, classes) how many pixels of each class are in both maps, and in either."""
    classes = maps.shape[-1]
    truth, answers = labels.astype(np.int64), _answers(maps, labels.shape[1:])
    known = (truth >= 0) & (truth != IGNORED)
    return np.stack([_overlap(*pair, classes) for pair in zip(answers, truth, known, strict=True)])


def _answers(maps: Array, size: tuple[int, ...]) -> Array:
    """The class of each pixel; maps are enlarged to the labels' size first, bilinearly."""
    scores = torch.from_numpy(np.ascontiguousarray(np.moveaxis(maps, -1, 1)))
    if tuple(scores.shape[2:]) != size:
        scores = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores.argmax(1).numpy()


def _overlap(answers: Array, truth: Array, known: Array, classes: int) -> Array:
    own, right = answers[known], truth[known]
    both = np.bincount(right[own == right], minlength=classes)[:classes]
    either = np.bincount(own, minlength=classes) + np.bincount(right, minlength=classes)[:classes] - both
    return np.stack([both, either])


def mean_iou(overlaps: Array, weights: Array) -> float:
    """Over the classes that some map has."""
    both, either = np.einsum("n,npc->pc", weights, overlaps.astype(np.float64))
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else float("nan")


def refuse_unfitting(labels: Array, classes: int, which: str) -> str | None:
    """Why labels are no maps of so many classes, or None. which: whose classes, such as "model outputs"."""
    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        return f"labels are {labels.dtype} {labels.shape}: expected maps (N, H, W) of classes"
    wrong = labels[(labels >= classes) & (labels != IGNORED)]
    if len(wrong):
        return f"label {wrong[0]}: expected one of the {classes} classes that the {which}, or 255"
    return None
