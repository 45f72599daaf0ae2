"""Tokens (N, tokens, size) and maps (N, size, H, W) or (N, H, W, size): a vector at each position.

Where the vectors are scores of classes, as of a segmenter, the class of each pixel counts (`segmentation`).

A single channel, as of a depth map, is one vector of all its positions: alone a number has no direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fimaq_deploy.measure.tasks.labelled_maps import are_classes, mean_iou, overlaps, refuse_unfitting
from fimaq_deploy.measure.tasks.positions import EXPLAINED_POSITIONS, NEAREST, WORST
from fimaq_deploy.measure.tasks.task import Array, Figure, Task
from fimaq_deploy.measure.tasks.vectors import COSINE, RELATIVE_ERROR


def channel_axis(shape: tuple[int, ...], features: int | None = None) -> int:
    """Where the vectors lie: along the axis of the model's own width; else last in tokens, and in maps along the axis
    that differs from the two of a square, the first one where none tells."""
    axes = range(1, len(shape))
    own = [axis for axis in axes if shape[axis] == features]
    if len(own) == 1:
        return own[0]
    if len(shape) != 4:
        return len(shape) - 1
    return 3 if shape[1] == shape[2] != shape[3] else 1


def _vectors(axis: int) -> Callable[[Array], Array]:
    def arrange(outputs: Array) -> Array:
        last = np.moveaxis(outputs, axis, -1)
        return last.reshape(len(last), 1, -1) if last.shape[-1] == 1 else last

    return arrange


def _are_values(maps: Array, labels: Array) -> bool:
    return np.issubdtype(labels.dtype, np.floating)


def _mean_error(maps: Array, labels: Array) -> Array:
    return np.abs(maps.reshape(len(maps), -1) - labels.reshape(len(labels), -1)).mean(1)


def _refuse_labels(maps: Array, labels: Array) -> str | None:
    if np.issubdtype(labels.dtype, np.floating):
        fits = labels[0].size == maps[0].size
        return None if fits else f"labels have shape {labels.shape}: expected as many values as the output has"
    if labels.ndim != 3 or maps.ndim != 4:
        return (
            f"labels are {labels.dtype} {labels.shape}: expected maps (N, H, W) of classes for an output that is a map"
        )
    return refuse_unfitting(labels, maps.shape[-1], "model outputs")


def _same_classes(own: Array, original: Array) -> Array:
    """(images,) the share of positions with the same class as the original; one that is not finite has none."""
    alike = (own.argmax(-1) == original.argmax(-1)) & np.isfinite(own).all(-1)
    return alike.reshape(len(own), -1).mean(1)


_MIOU = Figure(
    name="miou",
    title="mIoU",
    told="{value} mIoU",
    of="labels",
    parts=overlaps,
    value=mean_iou,
    unit="%",
    headline=True,
    column=True,
    applies=are_classes,
)


def dense(axis: int) -> Task:
    """The task of outputs whose vectors lie along an axis.

    Below the floors more than 31 % of a position is error, or half of it where only the length is wrong, or less than
    a quarter of what differs between images is left: one answer for all of them leaves nothing.
    """
    return Task(
        kind="dense",
        fits=lambda shape: len(shape) >= 3,
        expected="(N, tokens, size), (N, size, H, W) or (N, H, W, size)",
        figures=(
            _MIOU,
            Figure(
                name="mae",
                title="MAE",
                told="MAE {value}",
                of="labels",
                parts=_mean_error,
                higher_is_better=False,
                headline=True,
                column=True,
                applies=_are_values,
            ),
            replace(COSINE, headline=True, column=True, floor=0.95),
            replace(RELATIVE_ERROR, column=True, floor=50.0),
            EXPLAINED_POSITIONS,
            WORST,
            NEAREST,
        ),
        arrange=_vectors(axis),
        refuse_labels=_refuse_labels,
    )


def segmentation(axis: int) -> Task:
    """The task of maps whose vectors are scores of classes: which class a pixel has is what counts.

    Below the floor every other pixel has another class than the original's.
    """
    return Task(
        kind="segmentation",
        fits=lambda shape: len(shape) == 4,
        expected="(N, classes, H, W) or (N, H, W, classes)",
        figures=(
            _MIOU,
            Figure(
                name="agreement",
                title="agree",
                told="{value} of pixels as {other}",
                of="original",
                parts=_same_classes,
                unit="%",
                gate="agreement",
                floor=50.0,
                headline=True,
                column=True,
            ),
            replace(COSINE, column=True),
            replace(RELATIVE_ERROR, column=True),
        ),
        arrange=_vectors(axis),
        refuse_labels=_refuse_labels,
    )
