"""Figures of vectors: the last axis of own and reference, averaged over the positions before it.

Outputs of an encoder have much in common whatever the image shows: a model that answers every image alike may have a
cosine of 0.90. How much of what differs from image to image is kept (`EXPLAINED`) sees that: the original has 100 %,
one answer for all images at most 0, the answers of other images about -100.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fimaq_deploy.measure.tasks.task import Array, Figure


def cosines(own: Array, original: Array) -> Array:
    """(images,) from (images, ..., size)."""
    return _per_image(position_cosines(own, original))


def position_cosines(own: Array, original: Array) -> Array:
    """(images, ...) from (images, ..., size). Two zero vectors are alike, a zero and another vector are not."""
    a, b = own.astype(np.float64), original.astype(np.float64)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    zero = np.all(a == b, axis=-1).astype(np.float64)
    return np.where(length > 0, (a * b).sum(-1) / np.where(length > 0, length, 1), zero)


def relative_errors(own: Array, original: Array) -> Array:
    """(images,) the length of the difference over that of the original; 1 where only the original is zero."""
    a, b = own.astype(np.float64), original.astype(np.float64)
    error, length = np.linalg.norm(a - b, axis=-1), np.linalg.norm(b, axis=-1)
    return _per_image(np.where(length > 0, error / np.where(length > 0, length, 1), error > 0))


class _Errors(NamedTuple):
    """Of each image: its squared error, its numbers without what all have in common, and their squares together."""

    errors: Array
    away: Array
    squares: Array
    size: float


def both(own: Array, original: Array) -> Array:
    """(images, 2, ...)"""
    return np.stack([own, original], 1)


def _errors(pairs: Array) -> _Errors:
    own, original = (pairs[:, place].reshape(len(pairs), -1).astype(np.float64) for place in (0, 1))
    away = original - original.mean(0)
    return _Errors(((own - original) ** 2).sum(1), away, (away**2).sum(1), float((original**2).sum(1).mean()))


def _explained(state: _Errors, weights: Array) -> float:
    """1 less the squared errors over what the original's numbers differ from their mean over the images, position by
    position. Where they do not differ at all, errors of rounding are none."""
    total = weights.sum()
    spread = float(weights @ state.squares - (((weights @ state.away) ** 2).sum() / total)) / total
    least = max(spread, _ALIKE * state.size)
    error = float(weights @ state.errors) / total
    return float(1 - error / least) if least > 0 else float(error == 0)


def _per_image(values: Array) -> Array:
    return values.reshape(len(values), -1).mean(1)


_ALIKE = 1e-6  # of the mean square: images that differ by less are alike in float32
_IMAGES = 4096

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
EXPLAINED = Figure(
    name="explained",
    title="explained",
    told="{value} of what differs between images explained, as {other} has it",
    of="original",
    parts=both,
    state=_errors,
    value=_explained,
    unit="%",
    floor=25.0,
    column=True,
    fewest=8,
    most=_IMAGES,
)
