"""Figures of models with classes, as benchmarks tell them: numbers, where the package says None for what has none."""

from __future__ import annotations

from typing import Any

import fimaq_deploy as fd
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.measure.accuracy import Evaluation
from fimaq_deploy.measure.accuracy import agreement as share_of_equals


def top1(model: Any, images: ImageSource, batch_size: int = 100) -> float:
    """In percent.

    Raises:
        ValueError: the images have no labels, or the model has no classes.
    """
    found = fd.evaluate(model, images, batch_size=batch_size).top1
    if found is None:
        raise ValueError(f"{images.description}: expected labelled images, and a model with classes")
    return found


def agreement(one: Evaluation, other: Evaluation) -> float:
    """Percent of images of one class in both.

    Raises:
        ValueError: one of them predicted no classes.
    """
    if one.predictions is None or other.predictions is None:
        raise ValueError("expected evaluations of models with classes")
    return share_of_equals(one.predictions, other.predictions)
