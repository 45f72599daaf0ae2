"""Kinds of output, and how the kind of each output of a model is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, get_args

import numpy as np

from fimaq_deploy.data.objects import OBJECTS
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.tasks.choices import CHOICES
from fimaq_deploy.measure.tasks.classes import CLASSES
from fimaq_deploy.measure.tasks.dense import channel_axis, dense, segmentation
from fimaq_deploy.measure.tasks.depth import DEPTH
from fimaq_deploy.measure.tasks.detection import DETECTION
from fimaq_deploy.measure.tasks.embedding import EMBEDDING
from fimaq_deploy.measure.tasks.multilabel import MULTILABEL
from fimaq_deploy.measure.tasks.regression import REGRESSION
from fimaq_deploy.measure.tasks.task import Array, Figure, Gate, Kind, Task
from fimaq_deploy.measure.tasks.traits import Traits, traits_of

__all__ = [
    "Figure",
    "Gate",
    "Kind",
    "Task",
    "TaskChoice",
    "Tasks",
    "Traits",
    "find_tasks",
    "nothing_told",
    "parse_tasks",
    "task_text",
    "traits_of",
]

# A kind for every output, or the kinds of some by name.
TaskChoice: TypeAlias = "str | Mapping[str, str] | None"
Tasks: TypeAlias = "dict[str, Task]"

_FLAT: dict[str, Task] = {
    task.kind: task for task in (CLASSES, EMBEDDING, MULTILABEL, REGRESSION, CHOICES, DETECTION, DEPTH)
}
_MAPS = {"dense": dense, "segmentation": segmentation}
_EVERY = "*"
_SUM = 1e-3  # how far probabilities may be from one together


def parse_tasks(asked: TaskChoice | Sequence[str]) -> dict[str, str]:
    """`--task KIND` and `--task OUTPUT=KIND` as kinds by output; `*` stands for every output.

    Raises:
        UserError: an unknown kind.
    """
    words = [asked] if isinstance(asked, str) else asked or []
    pairs = words.items() if isinstance(words, Mapping) else (_split(word) for word in words)
    found = dict(pairs)
    for kind in found.values():
        if kind not in get_args(Kind):
            raise UserError(f"task '{kind}': expected one of {', '.join(get_args(Kind))}, or OUTPUT=KIND")
    return found


def task_text(name: str, kind: str) -> str:
    """As `parse_tasks` reads it."""
    return kind if name == _EVERY else f"{name}={kind}"


def find_tasks(
    outputs: Mapping[str, Array], traits: Traits, asked: Mapping[str, str] | None = None, labels: Array | None = None
) -> Tasks:
    """The task of each output, from one batch of them.

    asked: as `parse_tasks` returns it. labels: of the same batch; they tell a multi-label model from one of classes.

    Raises:
        UserError: an output of another shape than the kind asked for has, or no output of that name.
    """
    wanted = dict(asked or {})
    every = wanted.pop(_EVERY, None)
    for name in wanted:
        if name not in outputs:
            raise UserError(f"task for output '{name}': the model returns {', '.join(outputs)}")
    first = next(iter(outputs))
    return {
        name: _task(name, array, traits, wanted.get(name, every), labels if name == first else None)
        for name, array in outputs.items()
    }


def _split(word: str) -> tuple[str, str]:
    name, equals, kind = word.rpartition("=")
    return (name, kind) if equals else (_EVERY, word)


def _task(name: str, output: Array, traits: Traits, asked: str | None, labels: Array | None) -> Task:
    kind = asked or _kind(name, output, traits, labels)
    task = _MAPS[kind](channel_axis(output.shape, traits.features)) if kind in _MAPS else _FLAT[kind]
    if not task.fits(output.shape):
        fitting = [one.kind for one in (*_FLAT.values(), dense(1)) if one.fits(output.shape)]
        raise UserError(
            f"task '{kind}' for {name}, of shape (N, {', '.join(map(str, output.shape[1:]))}): expected "
            f"{task.expected}; it can be {' or '.join(fitting)}"
        )
    return task


def nothing_told(name: str, output: Array, traits: Traits, labels: Array | None = None) -> bool:
    """Whether vectors are taken to be no classes only because nothing says that they are."""
    silent = traits.classes is None and traits.problem is None and name not in traits.kinds and labels is None
    return silent and output.ndim == 2 and _kind(name, output, traits, labels) == "embedding"


def _kind(name: str, output: Array, traits: Traits, labels: Array | None) -> str:
    """The most that shape, labels and model tell; where nothing says that they are classes, vectors are vectors."""
    told = traits.kinds.get(name, "")
    if (told in _FLAT and _FLAT[told].fits(output.shape)) or (told in _MAPS and _MAPS[told](1).fits(output.shape)):
        return told
    if not np.issubdtype(output.dtype, np.floating):
        return "choices"
    if name == OBJECTS and DETECTION.fits(output.shape):
        return "detection"
    if output.ndim != 2:
        return "regression" if output.ndim == 1 else _of_positions(output, labels)
    if output.shape[1] == 1:
        return "regression"
    return _told_by_labels(output, labels) or _told_by_model(name, output, traits, labels)


def _of_positions(output: Array, labels: Array | None) -> str:
    """Maps whose labels are maps of classes tell classes."""
    are_classes = labels is not None and labels.ndim == 3 and np.issubdtype(labels.dtype, np.integer)
    return "segmentation" if output.ndim == 4 and are_classes else "dense"


def _told_by_labels(output: Array, labels: Array | None) -> str | None:
    if labels is None or labels.shape != output.shape:
        return None
    return "multilabel" if np.isin(labels, (0, 1)).all() else "regression"


def _told_by_model(name: str, output: Array, traits: Traits, labels: Array | None) -> str:
    """Of a predictor that says nothing of itself, labels that are classes tell, and probabilities that sum to one."""
    named = name.rpartition(".")[2].endswith("logits")
    labelled = traits.classes is None and labels is not None and np.issubdtype(labels.dtype, np.integer)
    shares = traits.classes is None and bool((output >= 0).all()) and np.allclose(output.sum(1), 1, atol=_SUM)
    classifier = traits.classes == output.shape[1] or named or labelled or shares
    return (traits.problem or "classes") if classifier else "embedding"
