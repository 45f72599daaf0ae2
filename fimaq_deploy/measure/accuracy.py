"""How good the outputs of anything are that maps images to arrays: a module, an ONNX session, an engine, a function.

reference = evaluate(model, images, labels=labels)
deployed = evaluate(engine, images, labels=labels, against=model)
deployed.value("agreement")

What is measured follows from the kind of each output (`measure.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fimaq_deploy.data.intake import as_source, reads_of
from fimaq_deploy.data.source import Batch, ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.banks import open_bank
from fimaq_deploy.measure.outputs import Outputs, Predict, named_like, running
from fimaq_deploy.measure.resampling import Interval, Measured, measured, wilson_interval
from fimaq_deploy.measure.tasks import Figure, TaskChoice, Tasks, find_tasks, parse_tasks, traits_of
from fimaq_deploy.measure.tasks.classes import NO_PREDICTION, predicted
from fimaq_deploy.measure.tasks.task import Array, Of

__all__ = ["Evaluation", "Pass", "Predict", "agreement", "evaluate", "largest_difference", "predicted", "top1"]
__all__ += ["wilson_interval"]

Integers = NDArray[np.int64]

_TAUGHT = ("embedding", "dense")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a predictor did on one pass over the images.

    tasks: the kind of each output, the main one first. figures: everything measured, of every output.
    not_finite: images with NaN or infinity in an output.
    largest_difference: of any number from the original's; None where nothing was compared.
    predictions: (images,) the class of each image, -1 where a logit is not finite; None where there are no classes.
    labels: (images,) or (images, columns), None where there are none that this kind of output can use; maps are not
        kept.
    outputs: (images, ...) each, kept only if asked.
    notes: what a reader should know.
    """

    images: int
    tasks: Tasks
    figures: tuple[Measured, ...]
    not_finite: int = 0
    largest_difference: float | None = None
    predictions: Integers | None = None
    labels: Array | None = None
    outputs: Outputs | None = None
    notes: tuple[str, ...] = ()

    def figure(self, name: str, output: str | None = None) -> Measured | None:
        """A figure of the main output, or of another one; None where it was not measured."""
        wanted = output or next(iter(self.tasks))
        return next((one for one in self.figures if (one.output, one.figure.name) == (wanted, name)), None)

    def value(self, name: str, output: str | None = None) -> float | None:
        """The number of a figure."""
        found = self.figure(name, output)
        return None if found is None else found.value

    @property
    def top1(self) -> float | None:
        """Percent; None without labels or classes."""
        return self.value("top1")

    @property
    def top5(self) -> float | None:
        """Percent; None also with fewer than 6 classes."""
        return self.value("top5")

    @property
    def interval(self) -> Interval | None:
        """The 95 % Wilson interval of top1, in percent."""
        found = self.figure("top1")
        return found.interval if found else None


def evaluate(
    predict: Predict,
    images: ImageSource | Any,
    *,
    labels: Tensor | Array | Sequence[Any] | None = None,
    task: TaskChoice = None,
    against: Predict | None = None,
    bank: ImageSource | Any | None = None,
    batch_size: int = 32,
    keep_outputs: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Run `predict` over every image once.

    predict: a module, which gets tensors on its own device in eval and inference mode, or a callable from numpy
        float32 (N, C, H, W). It returns an array (N, ...), or several in a tuple or a dictionary.
    images: whatever `as_source` accepts; `labels` belong to arrays.
    task: classes, embedding, multilabel, regression, dense, segmentation, depth or detection, or the kinds of several
        outputs by name; default: what the shape of the output, the labels and the attributes of a module tell.
    against: the original that outputs are compared with, on the same images.
    bank: labelled images that neighbours of embeddings vote from, and that a probe is fitted to: on what `against`
        makes of them, or `predict` where nothing is compared.
    progress: called with the number of images done so far, after each batch.

    Raises:
        UserError: the images are refused, an output has no entry for each image, it is not what `task` says, or a label
            is not one of the classes.
    """
    source, asked = as_source(images, reads_of(predict), labels=labels), parse_tasks(task)
    shown = None if bank is None else as_source(bank, reads_of(predict))
    taken: Pass | None = None
    with ExitStack() as stack:
        run = stack.enter_context(running(predict))
        compare = stack.enter_context(running(against)) if against is not None else None
        for batch in source.batches(batch_size):
            own, truth = run(batch.images), labels_of(batch)
            original = compare(batch.images) if compare else None
            if taken is None:
                spoken = traits_of(predict if original is None else against)
                tasks = find_tasks(original or own, spoken, asked, truth if shown is None else None)
                if shown is not None:
                    opened = open_bank(shown, compare or run, tasks, batch_size)
                    tasks = opened.tasks if compare is None else opened.tasks_of(predict, "the predictor")
                taken = Pass(tasks, keep_outputs=keep_outputs)
            taken.add(named_like(own, taken.tasks, "the predictor"), original, truth)
            if progress:
                progress(taken.images)
    assert taken is not None, "a source yields at least one batch, or raises"
    return taken.finish()


@dataclass
class Pass:
    """One pass over the images, batch by batch: what is kept of it are the parts of figures, not the outputs.

    only: which figures to measure; None is all.
    """

    tasks: Tasks
    keep_outputs: bool = False
    only: Callable[[Figure], bool] | None = None
    images: int = field(default=0, init=False)
    _parts: dict[tuple[str, str], list[Array]] = field(default_factory=dict, init=False)
    _predictions: list[Array] = field(default_factory=list, init=False)
    _labels: list[Array] = field(default_factory=list, init=False)
    _labelled: str | None = field(default=None, init=False)
    _outputs: dict[str, list[Array]] = field(default_factory=dict, init=False)
    _not_finite: int = field(default=0, init=False)
    _difference: float | None = field(default=None, init=False)
    _notes: list[str] = field(default_factory=list, init=False)

    @property
    def main(self) -> str:
        """The first output."""
        return next(iter(self.tasks))

    def add(self, own: Outputs, original: Outputs | None = None, labels: Array | None = None) -> None:
        """One batch under the names of `tasks`.

        Raises:
            UserError: a label is not one of the classes, or the outputs have other shapes than the original's.
        """
        self.images += len(own[self.main])
        self._not_finite += int(np.sum(~_finite(own)))
        for name in self.tasks:
            if original is not None:
                self._compare(name, own[name], original[name])
            if self.keep_outputs:
                self._outputs.setdefault(name, []).append(own[name])
        if self.tasks[self.main].kind == "classes":
            self._predictions.append(predicted(own[self.main]))
        if labels is not None:
            self._labelled = self._labelled or self._about(own, labels)
            self._hold_to_labels(self._labelled, own[self._labelled], labels)

    def finish(self) -> Evaluation:
        found = tuple(
            measured(output, self.tasks[output].figure(name), np.concatenate(parts))
            for (output, name), parts in self._parts.items()
            if self.tasks[output].figure(name).says_something(self.images)
        )
        return Evaluation(
            images=self.images,
            tasks=self.tasks,
            figures=found,
            not_finite=self._not_finite,
            largest_difference=self._difference,
            predictions=np.concatenate(self._predictions) if self._predictions else None,
            labels=np.concatenate(self._labels) if self._labels else None,
            outputs={name: np.concatenate(each) for name, each in self._outputs.items()} or None,
            notes=tuple(self._notes),
        )

    def _compare(self, name: str, own: Array, original: Array) -> None:
        if own.shape != original.shape:
            raise UserError(f"{name} has shape {own.shape} and {original.shape} in the original: expected the same")
        if self.tasks[name].kind != "detection":  # objects come in any order, so theirs says nothing
            largest = largest_difference(own, original)
            self._difference = largest if self._difference is None else float(np.maximum(self._difference, largest))
        self._measure(name, "original", own, original)

    def _about(self, own: Outputs, labels: Array) -> str:
        """The output that labels belong to: the main one, or where they are none of its, the first embedding that they
        may be of."""
        fitting = (
            name
            for name, task in self.tasks.items()
            if (name == self.main or task.kind in _TAUGHT) and not task.refuse_labels(task.arrange(own[name]), labels)
        )
        return self.main if self.tasks[self.main].kind == "classes" else next(fitting, self.main)

    def _hold_to_labels(self, name: str, own: Array, labels: Array) -> None:
        task = self.tasks[name]
        refused = task.refuse_labels(task.arrange(own), labels)
        if refused and (task.kind == "classes" or self._labels):
            raise UserError(refused)
        if refused:  # such as class folders, which bring labels whatever the model is
            self._notes = [f"{refused}; they are not used"]
            return
        if labels.ndim <= 2:
            self._labels.append(labels)
        self._measure(name, "labels", own, labels)

    def _measure(self, name: str, of: Of, own: Array, reference: Array) -> None:
        for figure, (mine, other) in self._figures(name, of, own, reference):
            left = len(mine) if figure.most is None else figure.most - (self.images - len(mine))
            if left > 0:
                parts = figure.parts(mine[:left], other[:left])
                self._parts.setdefault((name, figure.name), []).append(parts)

    def _figures(self, name: str, of: Of, own: Array, reference: Array) -> Iterator[tuple[Figure, tuple[Array, Array]]]:
        task = self.tasks[name]
        pair = task.arrange(own), task.arrange(reference) if of == "original" else reference
        for figure in task.figures:
            if figure.of == of and figure.applies(*pair) and (self.only is None or self.only(figure)):
                yield figure, pair


def labels_of(batch: Batch) -> Array | None:
    return None if batch.labels is None else batch.labels.numpy()


def agreement(a: Integers, b: Integers) -> float:
    """Percent of images with equal predictions. An image without a prediction agrees with nothing.

    Raises:
        ValueError: the arrays have different lengths or no element.
    """
    _require_same_shape(a, b)
    return 100 * float(np.mean((a == b) & (a != NO_PREDICTION)))


def largest_difference(a: Array, b: Array) -> float:
    """The largest |a - b| of any number; NaN where either holds NaN.

    Raises:
        ValueError: the arrays have different shapes or no element.
    """
    _require_same_shape(a, b)
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))


def top1(logits: Array, labels: Integers) -> float:
    """Percent of rows of `logits` (N, classes) whose largest entry is the label (N,)."""
    return 100 * float(np.mean(predicted(logits) == labels))


def _finite(outputs: Mapping[str, Array]) -> Array:
    """(images,) whether everything about an image is finite."""
    return np.logical_and.reduce([np.isfinite(each).reshape(len(each), -1).all(1) for each in outputs.values()])


def _require_same_shape(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"cannot compare arrays of shape {a.shape} and {b.shape}")
