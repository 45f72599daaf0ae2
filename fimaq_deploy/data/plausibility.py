"""Whether the labels of a data set can be what the model was trained with, from what the original says of its images.

A wrong order of classes does not look like an error: the original scores low, and every copy of it alike. Two signs
show it. Its accuracy is near that of guessing; or its predictions hang together within each label, but mean another
class than the label does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_NEAR_CHANCE = 0.05  # of the way from guessing to always right
_FEWEST_IMAGES = 10
_FEWEST_OF_A_LABEL = 5
_CLEARLY = 0.2  # so much more of the images agree with most of their label than with the label itself


def label_doubts(predictions: Integers, labels: Integers, classes: int) -> list[str]:
    """What a report should say about the labels; empty where they look right.

    predictions: (images,) of the full-precision model, the class with the largest logit. labels: (images,).
    classes: how many the model tells apart.
    """
    right = float(np.mean(predictions == labels)) if len(labels) else 1.0
    consistent = _consistency(predictions, labels)
    if consistent is not None and consistent - right > _CLEARLY:
        return [
            f"the labels look like those of another class order: the original is right on {100 * right:.1f} % of the "
            f"images, but says of {100 * consistent:.1f} % the same as of most others of their label; give the order "
            "with --class-map"
        ]
    if len(labels) and classes > 1 and _near_chance(right, len(labels), classes):
        return [
            f"the original is right on {100 * right:.1f} % of the images, near the {100 / classes:.3g} % of guessing: "
            "check the labels, the weights and the preprocessing"
        ]
    return []


def _near_chance(right: float, images: int, classes: int) -> bool:
    """Whether the accuracy is little above guessing: Cohen's kappa below 0.05, where there are images enough to say."""
    chance = 1 / classes
    return images >= _FEWEST_IMAGES and (right - chance) / (1 - chance) < _NEAR_CHANCE


def _consistency(predictions: Integers, labels: Integers) -> float | None:
    """The share of images that are predicted as most *other* images of their label; None with too few to tell.

    A class stands for one label only, so that a model which always says the same is not consistent.
    """
    best: dict[int, int] = {}
    counted = 0
    for label in np.unique(labels):
        own = predictions[labels == label]
        if len(own) >= _FEWEST_OF_A_LABEL:
            predicted, agreeing = _majority(own)
            best[predicted] = max(agreeing, best.get(predicted, 0))
            counted += len(own)
    return sum(best.values()) / counted if 2 * counted > len(labels) else None


def _majority(predictions: Integers) -> tuple[int, int]:
    """The most frequent class, and how many images have it that would not decide it alone."""
    values, counts = np.unique(predictions, return_counts=True)
    first, second = counts.argmax(), np.sort(counts)[-2:-1].sum()
    return int(values[first]), int(counts[first]) if counts[first] - 1 > second else 0
