"""What a kind of output is measured by, as data.

A task is a list of figures. A figure says what it compares, how a number follows from it, which way is better, which
threshold applies to it, and below what a model is plainly ruined. Whoever measures, reports or judges reads that and
knows no kind of output by name.

    own (B, ...), reference (B, ...)  --parts-->  (B, ...)      batch by batch, so that outputs need not be kept
    parts of all images               --state-->  what the number is made of
    state, weights (images,)          --value-->  the number, also of a resample
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Kind = Literal[
    "classes", "embedding", "multilabel", "regression", "dense", "choices", "detection", "segmentation", "depth"
]
Of = Literal["original", "labels"]
Gate = Literal["agreement", "cosine"]
Drop = Literal["build", "comparison"]

BEYOND_CHANCE = "agreement beyond chance {value} with {other}"


def weighted_mean(state: Array, weights: Array) -> float:
    """The mean of one number an image."""
    return float(np.dot(state, weights) / weights.sum())


def always(own: Array, reference: Array) -> bool:
    return True


def unchanged(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class Figure:
    """One number about the outputs of one model on some images.

    name: unique in its task, as reports keep it. title: how a table calls it.
    told: how a sentence tells it, with {value} and, of the original, its title as {other}.
    of: what it compares with, the original's outputs or the labels.
    parts, state, value: see above.
    unit: "%" makes percent of a share in [0, 1]; otherwise that of the outputs, or none.
    share: each image counts as a whole or not at all, so that its interval is Wilson's.
    gate: the threshold that applies. floor: the other side of it is a ruined model, whatever the model is for.
    drop: where --max-drop applies to it, beside the headline against the labels: in builds and when builds are
        compared, or only then.
    headline: whether this is the one to tell where only one is told. column: whether the table of all rows has it.
    applies: whether it means something for such a batch. fewest: images below which it says nothing; without a
        threshold it is left out then. most: the first so many images are all that it looks at; None is every one.
    """

    name: str
    title: str
    told: str
    of: Of
    parts: Callable[[Array, Array], Array]
    state: Callable[[Array], Any] = unchanged
    value: Callable[[Any, Array], float] = weighted_mean
    unit: str = ""
    higher_is_better: bool = True
    share: bool = False
    gate: Gate | None = None
    floor: float | None = None
    drop: Drop | None = None
    headline: bool = False
    column: bool = False
    applies: Callable[[Array, Array], bool] = always
    fewest: int = 0
    most: int | None = None

    def says_something(self, images: int) -> bool:
        """Of so many images; what a threshold applies to is never left out, so that the threshold always fires."""
        return self.gate is not None or images >= self.fewest

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean of one number an image."""
        return self.value is weighted_mean


@dataclass(frozen=True)
class Task:
    """How one kind of output is measured.

    kind: its name on the command line. fits: whether an output of such a shape (N, ...) can be of this kind.
    arrange: what is done to outputs first. refuse_labels: why labels of a batch are none of this output's, or None.
    """

    kind: Kind
    figures: tuple[Figure, ...]
    fits: Callable[[tuple[int, ...]], bool]
    expected: str
    arrange: Callable[[Array], Array] = unchanged
    refuse_labels: Callable[[Array, Array], str | None] = field(default=lambda own, labels: None)

    def figure(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)
