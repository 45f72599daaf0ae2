"""Depth maps (N, H, W) or (N, 1, H, W) in the labels' own unit: the relative error of each pixel.

Pixels whose true depth is 0, less, or not finite were not measured and do not count. A model whose depth is known up to
a scale and an offset alone is not aligned here: give a function of your own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fimaq_deploy.measure.tasks.task import Array, Figure, Task
from fimaq_deploy.measure.tasks.vectors import COSINE

_CLOSE = 1.25


def _per_image(of_pixels: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The mean over the pixels that are known; an image without any is not a number, and does not count."""

    def parts(own: Array, reference: Array) -> Array:
        own, true = (each.reshape(len(each), -1).astype(np.float64) for each in (own, reference))
        known = np.isfinite(true) & (true > 0)
        pixels = np.where(known, of_pixels(own, np.where(known, true, 1.0)), 0.0).sum(1)
        count = known.sum(1)
        return np.stack([pixels, count], 1)

    return parts


def _mean_of_images(parts: Array, weights: Array) -> float:
    """Every image alike, as the literature has it."""
    some = parts[:, 1] > 0
    each = parts[some, 0] / parts[some, 1]
    return float(each @ weights[some] / weights[some].sum()) if weights[some].sum() else float("nan")


def _relative(own: Array, true: Array) -> Array:
    return np.abs(own - true) / true


def _within(own: Array, true: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.where(own > 0, np.maximum(own / true, true / np.where(own > 0, own, 1)) < _CLOSE, 0.0)


def _flat(maps: Array) -> Array:
    return maps.reshape(len(maps), 1, -1)


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if not np.issubdtype(labels.dtype, np.floating) or labels[0].size != own[0].size:
        return f"labels are {labels.dtype} {labels.shape}: expected depths, floating point, as many as the output has"
    return None


DEPTH = Task(
    kind="depth",
    fits=lambda shape: len(shape) == 3 or (len(shape) == 4 and shape[1] == 1),
    expected="(N, H, W) or (N, 1, H, W)",
    figures=(
        Figure(
            name="abs_rel",
            title="AbsRel",
            told="AbsRel {value}",
            of="labels",
            parts=_per_image(_relative),
            value=_mean_of_images,
            unit="%",
            higher_is_better=False,
            headline=True,
            column=True,
        ),
        Figure(
            name="delta1",
            title="δ1",
            told="{value} of pixels within 25 %",
            of="labels",
            parts=_per_image(_within),
            value=_mean_of_images,
            unit="%",
            column=True,
        ),
        Figure(
            name="relative_change",
            title="AbsRel to orig.",
            told="AbsRel {value} against {other}",
            of="original",
            parts=_per_image(_relative),
            value=_mean_of_images,
            unit="%",
            higher_is_better=False,
            floor=50.0,
            column=True,
        ),
        Figure(
            name="cosine",
            title="cosine",
            told="cosine {value} with {other}",
            of="original",
            parts=COSINE.parts,
            gate="cosine",
            headline=True,
        ),
    ),
    arrange=_flat,
    refuse_labels=_refuse_labels,
)
