"""Figures of vectors: the last axis of own and reference, averaged over the positions before it."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.measure.tasks.task import Array, Figure


def cosines(own: Array, original: Array) -> Array:
    """(images,) from (images, ..., size). Two zero vectors are alike, a zero and another vector are not."""
    a, b = own.astype(np.float64), original.astype(np.float64)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    zero = np.all(a == b, axis=-1).astype(np.float64)
    return _per_image(np.where(length > 0, (a * b).sum(-1) / np.where(length > 0, length, 1), zero))


def relative_errors(own: Array, original: Array) -> Array:
    """(images,) the length of the difference over that of the original; 1 where only the original is zero."""
    a, b = own.astype(np.float64), original.astype(np.float64)
    error, length = np.linalg.norm(a - b, axis=-1), np.linalg.norm(b, axis=-1)
    return _per_image(np.where(length > 0, error / np.where(length > 0, length, 1), error > 0))


def _per_image(values: Array) -> Array:
    return values.reshape(len(values), -1).mean(1)


COSINE = Figure("cosine", "cosine", "cosine {value} with {other}", "original", cosines, gate="cosine")
RELATIVE_ERROR = Figure(
    name="relative_error",
    title="rel. error",
    told="relative error {value} against {other}",
    of="original",
    parts=relative_errors,
    unit="%",
    higher_is_better=False,
)
