"""A figure of the user's own: a function from a predictor to a number, or to several by name. Higher is better.

    def evaluate(predict):
        return mean_average_precision(predict(images)["boxes"], truth)

`predict` takes images (N, C, H, W), float32, as an array or a tensor, and returns the output as a float32 array, or a
dictionary of arrays where the model has several outputs. The function decides which images, and how many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.measure.outputs import Predict, running

OwnFigures: TypeAlias = "dict[str, float]"
OwnFunction: TypeAlias = "Callable[[Callable[[Any], Any]], float | Mapping[str, float]]"


def own_figures(function: OwnFunction, predict: Predict) -> OwnFigures:
    """What the function says of a predictor; a single number under the function's name. NaN and infinity are kept.

    What the function raises keeps its traceback.

    Raises:
        UserError: it returned something else.
    """
    with running(predict) as run:
        found = function(lambda images: _call(run, images))
    figures = dict(found) if isinstance(found, Mapping) else {name_of(function): found}
    if not figures or not all(isinstance(name, str) and _is_number(value) for name, value in figures.items()):
        raise UserError(f"{name_of(function)} returned {shown(found)}: expected a number, or numbers by name")
    return {name: float(value) for name, value in figures.items()}


def name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _call(run: Callable[[torch.Tensor], dict[str, Any]], images: Any) -> Any:
    outputs = run(torch.as_tensor(images, dtype=torch.float32).cpu())
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _is_number(value: object) -> bool:
    """Also a scalar of NumPy or torch."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return False
    return isinstance(value, (int, float, np.number)) or getattr(value, "ndim", None) == 0
