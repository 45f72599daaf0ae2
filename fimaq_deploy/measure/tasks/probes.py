"""How well embeddings carry classes: by their neighbours, and by a linear classifier that is fitted to them.

Both see the images that are measured and nothing else. An image never votes for itself, and the classifier of one half
of the images is judged on the other. The votes are those of DINO's evaluation: M. Caron et al., Emerging Properties in
Self-Supervised Vision Transformers, ICCV 2021, appendix; Z. Wu et al., CVPR 2018.
"""

from __future__ import annotations

import numpy as np

from fimaq_deploy.measure.tasks.task import Array

_TEMPERATURE = 0.07
_RIDGE = 1e-3  # of the mean variance of a feature
_ROWS = 512  # queries at a time


def unit(vectors: Array) -> Array:
    """Of length 1; zeros, and zero for what is not a number, stay zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.nan_to_num(vectors / np.where(length > 0, length, 1))


def voted(vectors: Array, labels: Array, count: int) -> Array:
    """(N,) the class that most of the `count` nearest other images have, each weighing exp(cosine / 0.07)."""
    directions, kinds = unit(vectors), labels.astype(np.int64)
    known, place = np.unique(kinds, return_inverse=True)
    found = [_votes(directions, start, count, place, len(known)) for start in range(0, len(directions), _ROWS)]
    return known[np.concatenate(found).argmax(1)]


def _votes(directions: Array, start: int, count: int, place: Array, classes: int) -> Array:
    cosine = directions[start : start + _ROWS] @ directions.T
    rows = np.arange(len(cosine))
    cosine[rows, start + rows] = -np.inf
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    weights = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / _TEMPERATURE)
    votes = np.zeros((len(cosine), classes))
    np.add.at(votes, (rows[:, None], place[nearest]), weights)
    return votes


def probed(vectors: Array, labels: Array) -> Array:
    """(N,) the class that a linear classifier says, least squares on classes with a small ridge, fitted to the images
    of even numbers for those of odd ones, and the other way round."""
    known, place = np.unique(labels.astype(np.int64), return_inverse=True)
    features, even = np.nan_to_num(vectors.astype(np.float64)), np.arange(len(vectors)) % 2 == 0
    answers = np.empty(len(vectors), np.int64)
    for asked in (even, ~even):
        answers[asked] = _fitted(features[~asked], place[~asked], len(known), features[asked])
    return known[answers]


def _fitted(features: Array, place: Array, classes: int, asked: Array) -> Array:
    mean = features.mean(0)
    away, wanted = features - mean, np.eye(classes)[place]
    square = away.T @ away
    ridge = _RIDGE * np.trace(square) / len(square) + 1e-12
    weights = np.linalg.solve(square + ridge * np.eye(len(square)), away.T @ (wanted - wanted.mean(0)))
    return np.argmax((asked - mean) @ weights + wanted.mean(0), axis=1)
