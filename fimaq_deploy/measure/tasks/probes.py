"""How well vectors carry classes: by the votes of their neighbours, and by a linear classifier that is fitted to them.

The votes are those of DINO's evaluation: M. Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
ICCV 2021, appendix; Z. Wu et al., CVPR 2018. The classifier is least squares on classes with a small ridge.

`voted` and `probed` see the images that are measured and nothing else: an image never votes for itself, and the
classifier of one half of the images is judged on the other. A `Bank` has images of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fimaq_deploy.measure.tasks.task import Array

VOTERS = 20
NOBODY = -1

_TEMPERATURE = 0.07
_RIDGE = 1e-3  # of the mean variance of a feature
_ROWS = 512  # queries at a time


def unit(vectors: Array) -> Array:
    """Of length 1; zeros stay zeros, and a vector that is not finite becomes them."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(length), vectors / np.where(length > 0, length, 1), 0)


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores (N, classes) of vectors (N, size): (vector - mean) @ weights + offset."""

    mean: Array
    weights: Array
    offset: Array

    def __call__(self, vectors: Array) -> Array:
        return np.asarray((np.nan_to_num(vectors.astype(np.float64)) - self.mean) @ self.weights + self.offset)


@dataclass
class Fit:
    """Least squares, of vectors that come in parts: sums of products, and not the vectors."""

    count: float = 0.0
    total: Array | float = 0.0
    square: Array | float = 0.0
    wanted: Array | float = 0.0
    product: Array | float = 0.0

    def add(self, vectors: Array, wanted: Array, weights: Array | None = None) -> None:
        """vectors (N, size); wanted (N, classes), such as 1 for the class and 0 for the others; weights (N,)."""
        features = np.nan_to_num(vectors.astype(np.float64))
        weighed = features if weights is None else features * weights[:, None]
        self.count += len(features) if weights is None else float(weights.sum())
        self.total = self.total + weighed.sum(0)
        self.square = self.square + weighed.T @ features
        self.wanted = self.wanted + (wanted.sum(0) if weights is None else weights @ wanted)
        self.product = self.product + weighed.T @ wanted

    def solved(self) -> Linear:
        """The classifier of everything that was added."""
        mean, offset = self.total / self.count, self.wanted / self.count
        square = np.asarray(self.square) - self.count * np.outer(mean, mean)
        ridge = _RIDGE * np.trace(square) / len(square) + 1e-12
        product = np.asarray(self.product) - self.count * np.outer(mean, offset)
        weights = np.linalg.solve(square + ridge * np.eye(len(square)), product)
        return Linear(np.asarray(mean), weights, np.asarray(offset))


@dataclass(frozen=True, eq=False)
class Bank:
    """Labelled images as vectors (N, size), with their classes (N,)."""

    vectors: Array
    labels: Array

    @cached_property
    def probe(self) -> Linear:
        """Fitted to all of it."""
        return _fitted(self.vectors, self._place, len(self._known))

    def voted(self, asked: Array) -> Array:
        """(M,) the class that most of the 20 nearest images of the bank have, each weighing exp(cosine / 0.07); -1
        where a vector (M, size) is not finite."""
        directions, count = unit(asked), min(VOTERS, len(self.vectors))
        rows = range(0, len(directions), _ROWS)
        votes = [self._votes(directions[start : start + _ROWS] @ self._directions.T, count) for start in rows]
        return self._finite(asked, np.concatenate(votes))

    def probed(self, asked: Array, probe: Linear | None = None) -> Array:
        """(M,) the class that a linear classifier says, this bank's where none is given."""
        return self._finite(asked, (probe or self.probe)(asked))

    def _votes(self, cosine: Array, count: int) -> Array:
        return votes(cosine, count, self._place, len(self._known))

    def _finite(self, asked: Array, scores: Array) -> Array:
        return np.where(np.isfinite(asked).all(1), self._known[scores.argmax(1)], NOBODY)

    @cached_property
    def _directions(self) -> Array:
        return unit(self.vectors)

    @cached_property
    def _known(self) -> Array:
        return np.unique(self.labels.astype(np.int64))

    @cached_property
    def _place(self) -> Array:
        return np.searchsorted(self._known, self.labels)


def voted(vectors: Array, labels: Array, count: int = VOTERS) -> Array:
    """(N,) the class that most of the `count` nearest other images have, each weighing exp(cosine / 0.07)."""
    directions, kinds = unit(vectors), labels.astype(np.int64)
    known, place = np.unique(kinds, return_inverse=True)
    found = [_of_others(directions, start, count, place, len(known)) for start in range(0, len(directions), _ROWS)]
    return known[np.concatenate(found).argmax(1)]


def _of_others(directions: Array, start: int, count: int, place: Array, classes: int) -> Array:
    cosine = directions[start : start + _ROWS] @ directions.T
    rows = np.arange(len(cosine))
    cosine[rows, start + rows] = -np.inf
    return votes(cosine, count, place, classes)


def votes(cosine: Array, count: int, place: Array, classes: int) -> Array:
    """(N, classes) of cosines (N, M) with vectors whose classes are in `place` (M,)."""
    rows = np.arange(len(cosine))
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    weights = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / _TEMPERATURE)
    found = np.zeros((len(cosine), classes))
    np.add.at(found, (rows[:, None], place[nearest]), weights)
    return found


def probed(vectors: Array, labels: Array) -> Array:
    """(N,) the class that a linear classifier says, least squares on classes with a small ridge, fitted to the images
    of even numbers for those of odd ones, and the other way round."""
    known, place = np.unique(labels.astype(np.int64), return_inverse=True)
    even = np.arange(len(vectors)) % 2 == 0
    answers = np.empty(len(vectors), np.int64)
    for asked in (even, ~even):
        answers[asked] = _fitted(vectors[~asked], place[~asked], len(known))(vectors[asked]).argmax(1)
    return known[answers]


def _fitted(vectors: Array, place: Array, classes: int) -> Linear:
    fit = Fit()
    fit.add(vectors, np.eye(classes)[place])
    return fit.solved()
