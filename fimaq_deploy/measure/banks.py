"""A bank of labelled images, run through the original and through every model that is compared with it.

Neighbours vote from it and probes are fitted to it (`measure.tasks.banked`). The first output that is an embedding is
what the classes of images are about, the first that is dense what maps of classes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.outputs import Outputs, Predict, named_like, running
from fimaq_deploy.measure.tasks import Tasks
from fimaq_deploy.measure.tasks.banked import dense_with_bank, embedding_with_bank
from fimaq_deploy.measure.tasks.labelled_maps import IGNORED
from fimaq_deploy.measure.tasks.patches import on_grid
from fimaq_deploy.measure.tasks.probes import Bank, Fit, Linear
from fimaq_deploy.measure.tasks.task import Array

_LARGEST = 2**30  # numbers of all vectors of a bank together
_MOST_CLASSES = 1024  # of maps

Run = Callable[[Tensor], Outputs]
Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class OpenBank:
    """A bank, and what the original makes of it: embeddings, or a probe of patches.

    plain: what is measured without it. output: which one it is about. count: of images. classes: of them.
    digest: of images and labels.
    """

    images: ImageSource
    batch_size: int
    plain: Tasks
    output: str
    original: Bank | Linear
    count: int
    classes: int
    digest: str

    @property
    def description(self) -> str:
        """For a report."""
        return f"{self.count} images of {self.classes} classes from {self.images.description}"

    @property
    def tasks(self) -> Tasks:
        """What is measured of the original."""
        return self._with(self.original)

    def tasks_of(self, predict: Predict, who: str, progress: Progress | None = None) -> Tasks:
        """What is measured of a model: its own embeddings of the bank are made, which of a dense output nobody needs.

        Raises:
            UserError: it returns other outputs than the original.
        """
        if isinstance(self.original, Linear):
            return self.tasks
        with running(predict) as run:
            return self._with(_embedded(self.images, self.batch_size, run, self.plain, self.output, who, progress))

    def _with(self, own: Bank | Linear) -> Tasks:
        task = self.plain[self.output]
        if isinstance(own, Linear):
            return {**self.plain, self.output: dense_with_bank(task, own)}
        assert isinstance(self.original, Bank)
        return {**self.plain, self.output: embedding_with_bank(task, self.original, own)}


def open_bank(
    images: ImageSource, run: Run, tasks: Tasks, batch_size: int, progress: Progress | None = None
) -> OpenBank:
    """Run the original over a bank. tasks: of its outputs.

    progress: called with the number of images done so far.

    Raises:
        UserError: the bank has no labels, fewer than two classes, or the model no output that they could be about.
    """
    kind = _kind(images)
    output = next((name for name, task in tasks.items() if task.kind == kind), None)
    if output is None:
        kinds = ", ".join(f"{name} is measured as {task.kind}" for name, task in tasks.items())
        raise UserError(
            f"bank {images.description}: its labels are about an output that is {kind}, and {kinds}; say otherwise "
            f"with --task OUTPUT={kind}"
        )
    if kind == "dense":
        probe, count, known = _probe(images, batch_size, run, tasks, output, progress)
        return OpenBank(images, batch_size, tasks, output, probe, count, known, _digest(images, batch_size))
    bank = _embedded(images, batch_size, run, tasks, output, "the original", progress)
    classes = len(np.unique(bank.labels))
    _require_classes(images, classes)
    return OpenBank(images, batch_size, tasks, output, bank, len(bank.labels), classes, _digest(images, batch_size))


def _digest(images: ImageSource, batch_size: int) -> str:
    """However they are batched."""
    images_seen, labels_seen = hashlib.sha256(), hashlib.sha256()
    for batch in images.batches(batch_size):
        assert batch.labels is not None, "a source has labels in all batches or in none"
        images_seen.update(np.ascontiguousarray(batch.images.numpy()).data)
        labels_seen.update(np.ascontiguousarray(batch.labels.numpy()).data)
    return images_seen.hexdigest() + labels_seen.hexdigest()


def _kind(images: ImageSource) -> str:
    """Of the output that the labels are about."""
    labels = next(iter(images.batches(1))).labels
    if labels is None:
        raise UserError(
            f"bank {images.description}: no labels; expected a folder with one sub-folder per class, arrays with "
            "labels, or maps of classes beside the images"
        )
    if labels.ndim not in (1, 3) or labels.is_floating_point():
        raise UserError(
            f"bank {images.description}: labels are {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}: "
            "expected one class an image, or maps (N, H, W) of classes"
        )
    return "embedding" if labels.ndim == 1 else "dense"


def _outputs(
    images: ImageSource, batch_size: int, run: Run, tasks: Tasks, output: str, who: str, progress: Progress | None
) -> Iterator[tuple[Array, Array]]:
    """Vectors and labels of one batch after the other."""
    done = 0
    for batch in images.batches(batch_size):
        assert batch.labels is not None, "a source has labels in all batches or in none"
        found = named_like(run(batch.images), tasks, who)[output]
        yield tasks[output].arrange(found), batch.labels.numpy()
        done += len(found)
        if progress:
            progress(done)


def _embedded(
    images: ImageSource, batch_size: int, run: Run, tasks: Tasks, output: str, who: str, progress: Progress | None
) -> Bank:
    found: list[tuple[Array, Array]] = []
    for vectors, labels in _outputs(images, batch_size, run, tasks, output, who, progress):
        found.append((vectors, labels))
        if sum(each.size for each, _ in found) > _LARGEST:
            raise UserError(f"bank {images.description}: more than {_LARGEST:,} numbers of embeddings; give fewer")
    return Bank(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _probe(
    images: ImageSource, batch_size: int, run: Run, tasks: Tasks, output: str, progress: Progress | None
) -> tuple[Linear, int, int]:
    """Fitted to every patch: what share of it each class has. How many images and classes there are, too."""
    classes = _classes_of_maps(images, batch_size)
    fit, count = Fit(), 0
    for vectors, labels in _outputs(images, batch_size, run, tasks, output, "the original", progress):
        patches = on_grid(vectors, labels.shape[1:])
        shares, weights = _shares(labels, patches.shape[1:3], classes)
        fit.add(patches.reshape(-1, patches.shape[-1]), shares, weights)
        count += len(labels)
    return fit.solved(), count, classes


def _classes_of_maps(images: ImageSource, batch_size: int) -> int:
    """One more than the largest that a map has."""
    found = [batch.labels.numpy() for batch in images.batches(batch_size) if batch.labels is not None]
    largest = max(int(each[_known(each)].max(initial=-1)) for each in found)
    if largest >= _MOST_CLASSES:
        raise UserError(f"bank {images.description}: class {largest}: expected fewer than {_MOST_CLASSES}, or 255")
    _require_classes(images, largest + 1)
    return largest + 1


def _known(labels: Array) -> Array:
    return (labels >= 0) & (labels != IGNORED)


def _require_classes(images: ImageSource, classes: int) -> None:
    if classes < 2:
        raise UserError(f"bank {images.description}: {classes} class: expected two or more")


def _shares(labels: Array, grid: tuple[int, int], classes: int) -> tuple[Array, Array]:
    """(patches, classes) the share of each class of what is known of a patch, and (patches,) the share that is."""
    known = _known(labels)
    kinds = torch.from_numpy(np.where(known, labels, 0).astype(np.int64))
    each = torch.nn.functional.one_hot(kinds, classes) * torch.from_numpy(known)[..., None]
    pooled = torch.nn.functional.adaptive_avg_pool2d(each.permute(0, 3, 1, 2).double(), grid)
    flat = pooled.permute(0, 2, 3, 1).reshape(-1, classes).numpy()
    weights = flat.sum(1)
    return flat / np.maximum(weights, 1e-12)[:, None], weights
