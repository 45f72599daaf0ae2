"""Embeddings (N, size): their direction matters, and which images are neighbours.

Neighbours are by cosine, among the images given, an image not its own; both spaces are searched as they are, as where a
gallery is embedded anew by the model that is shipped. Of many images the first 4,096 are searched. With labels a linear
classifier and the votes of neighbours say how well classes can be told (`measure.tasks.probes`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fimaq_deploy.measure.tasks.probes import probed, unit, voted
from fimaq_deploy.measure.tasks.task import Array, Figure, Task
from fimaq_deploy.measure.tasks.vectors import COSINE, EXPLAINED, RELATIVE_ERROR, both

_GALLERY = 4096
_ROWS = 512  # queries at a time
_VOTERS = 20


def _with_labels(own: Array, labels: Array) -> Array:
    return np.concatenate([own.astype(np.float64), labels[:, None]], 1)


def nearest(vectors: Array, count: int) -> Array:
    """(N, count) the images with the largest cosines, the image itself left out, the nearest first."""
    directions = unit(vectors)
    return np.concatenate([_nearest(directions, start, count) for start in range(0, len(directions), _ROWS)])


def _nearest(directions: Array, start: int, count: int) -> Array:
    cosine = directions[start : start + _ROWS] @ directions.T
    cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = -np.inf
    return np.argsort(-cosine, axis=1, kind="stable")[:, :count]


def _kept_neighbours(count: int) -> Figure:
    """Of the original's nearest images, the share that are the nearest still."""

    def state(pairs: Array) -> Array:
        if len(pairs) <= 2 * count:  # where chance alone keeps half of them
            return np.full(len(pairs), np.nan)
        own, original = (nearest(pairs[:, place], count) for place in (0, 1))
        kept = (own[:, :, None] == original[:, None]).any(1).mean(1)
        return np.where(np.isfinite(pairs).all((1, 2)), kept, 0.0)

    return Figure(
        name=f"recall{count}",
        title=f"recall@{count}",
        told=f"{{value}} of the {'nearest neighbours' if count == 1 else f'{count} nearest'} as {{other}}",
        of="original",
        parts=both,
        state=state,
        unit="%",
        share=count == 1,
        gate="agreement" if count == 1 else None,
        column=True,
        fewest=2 * count + 1,
        most=_GALLERY,
    )


def _neighbour_classes(found: Array) -> Array:
    """Whether the nearest image has the same class."""
    vectors, labels = found[:, :-1], found[:, -1]
    return (labels[nearest(vectors, 1)[:, 0]] == labels) & np.isfinite(vectors).all(1)


def _voted_classes(found: Array) -> Array:
    """Whether the neighbours' vote is right."""
    vectors, labels = found[:, :-1], found[:, -1]
    return (voted(vectors, labels, _VOTERS) == labels) & np.isfinite(vectors).all(1)


def _probed_classes(found: Array) -> Array:
    """Whether the linear classifier is right."""
    vectors, labels = found[:, :-1], found[:, -1]
    return (probed(vectors, labels) == labels) & np.isfinite(vectors).all(1)


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return f"labels are {labels.dtype} {labels.shape}: expected one class an image, as integers"
    return None


# Below the floors more than 31 % of an embedding is error, or less than a quarter of what differs between images left.
EMBEDDING = Task(
    kind="embedding",
    fits=lambda shape: len(shape) == 2 and shape[1] > 1,
    expected="(N, size)",
    figures=(
        Figure(
            name="knn",
            title="1-NN",
            told="{value} of nearest neighbours of the same class",
            of="labels",
            parts=_with_labels,
            state=_neighbour_classes,
            unit="%",
            share=True,
            headline=True,
            column=True,
            most=_GALLERY,
        ),
        Figure(
            name="knn20",
            title="20-NN",
            told="{value} right by the vote of 20 neighbours",
            of="labels",
            parts=_with_labels,
            state=_voted_classes,
            unit="%",
            share=True,
            fewest=2 * _VOTERS + 1,
            most=_GALLERY,
        ),
        Figure(
            name="probe",
            title="linear probe",
            told="{value} right by a linear probe",
            of="labels",
            parts=_with_labels,
            state=_probed_classes,
            unit="%",
            share=True,
            fewest=2 * _VOTERS + 1,
            most=_GALLERY,
        ),
        replace(COSINE, headline=True, column=True, floor=0.95),
        replace(RELATIVE_ERROR, column=True),
        EXPLAINED,
        _kept_neighbours(1),
        _kept_neighbours(10),
    ),
    refuse_labels=_refuse_labels,
)
