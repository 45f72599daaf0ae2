"""Accuracy and agreement of anything that maps images to logits: a module, an ONNX session, an engine.

reference = evaluate(model, source)
deployed = evaluate(runner, source, keep_logits=True)
agreement(reference.predictions, deployed.predictions)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fimaq_deploy.data.intake import as_source, reads_of
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError

Predict: TypeAlias = "nn.Module | Callable[[NDArray[np.float32]], Any]"
Logits: TypeAlias = "NDArray[np.float32]"
Integers: TypeAlias = "NDArray[np.int64]"

NO_PREDICTION = -1
_Z95 = 1.959964


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What a predictor did on one pass over the images.

    top1, top5: percent; None without labels, top5 also with fewer than 6 classes.
    interval: the 95 % Wilson interval of top1, in percent.
    predictions: (images,) the largest logit, or -1 where a logit was NaN or infinite, which counts as wrong.
    labels: (images,), None where the images have none.
    logits: (images, classes), kept only if asked.
    """

    images: int
    top1: float | None
    top5: float | None
    interval: tuple[float, float] | None
    predictions: Integers
    labels: Integers | None
    logits: Logits | None

    @property
    def not_finite(self) -> int:
        """Images whose logits held NaN or infinity."""
        return int((self.predictions == NO_PREDICTION).sum())


def evaluate(
    predict: Predict,
    images: ImageSource | Any,
    *,
    labels: Tensor | Integers | Sequence[int] | None = None,
    batch_size: int = 32,
    keep_logits: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Accuracy:
    """Run `predict` over every image once.

    predict: a module, which gets tensors on its own device in eval and inference mode, or a callable from numpy
        float32 (N, C, H, W) to logits (N, classes).
    images: whatever `as_source` accepts; `labels` belong to arrays.
    progress: called with the number of images done so far, after each batch.

    Raises:
        UserError: the images are refused, the logits are not (N, classes), or a label is not one of the classes.
    """
    source = as_source(images, reads_of(predict), labels=labels)
    kept, ranks, predictions, truth = [], [], [], []
    with _runner(predict) as run:
        for batch in source.batches(batch_size):
            _check_labels(batch.labels)
            logits = _checked_logits(run(batch.images), len(batch.images))
            predictions.append(predicted(logits))
            if batch.labels is not None:
                truth.append(batch.labels.numpy())
                ranks.append(_ranks(logits, truth[-1]))
            if keep_logits:
                kept.append(logits)
            if progress:
                progress(sum(map(len, predictions)))
    return _accuracy(predictions, ranks, truth, kept, logits.shape[1])


def agreement(a: Integers, b: Integers) -> float:
    """Percent of images with equal predictions. An image without a prediction agrees with nothing.

    Raises:
        ValueError: the arrays have different lengths or no element.
    """
    _require_same_shape(a, b)
    return 100 * float(np.mean((a == b) & (a != NO_PREDICTION)))


def largest_difference(a: Logits, b: Logits) -> float:
    """The largest |a - b| of any logit; NaN where either holds NaN.

    Raises:
        ValueError: the arrays have different shapes or no element.
    """
    _require_same_shape(a, b)
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))


def top1(logits: Logits, labels: Integers) -> float:
    """Percent of rows of `logits` (N, classes) whose largest entry is the label (N,)."""
    return 100 * float(np.mean(predicted(logits) == labels))


def predicted(logits: Logits) -> Integers:
    """The class with the largest logit of each row, or -1 where a logit of the row is not finite."""
    return np.where(np.isfinite(logits).all(1), logits.argmax(1), NO_PREDICTION).astype(np.int64)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent. E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    share, z2 = hits / count, _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _accuracy(
    predictions: list[Integers], ranks: list[Integers], truth: list[Integers], kept: list[Logits], classes: int
) -> Accuracy:
    found = np.concatenate(predictions)
    rank = np.concatenate(ranks) if ranks else None
    hits = None if rank is None else int((rank == 0).sum())
    return Accuracy(
        images=len(found),
        top1=None if hits is None else 100 * hits / len(found),
        top5=None if rank is None or classes < 6 else 100 * float(np.mean(rank < 5)),
        interval=None if hits is None else wilson_interval(hits, len(found)),
        predictions=found,
        labels=np.concatenate(truth) if truth else None,
        logits=np.concatenate(kept) if kept else None,
    )


def _check_labels(labels: Tensor | None) -> None:
    if labels is not None and (labels.ndim != 1 or labels.is_floating_point()):
        kind = str(labels.dtype).removeprefix("torch.")
        raise UserError(f"labels are {kind} {tuple(labels.shape)}: expected integers, the class of each image")


def _ranks(logits: Logits, labels: Integers) -> Integers:
    """How many classes come before the label, (N,); every class where a logit is not finite.

    Ties go to the lower class, as in argmax.
    """
    classes = logits.shape[1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise UserError(f"label {wrong[0]}: expected one of the {classes} classes that the model outputs, from 0")
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    before = ((logits > own) | ((logits == own) & earlier)).sum(1)
    return np.where(np.isfinite(logits).all(1), before, classes)


@contextmanager
def _runner(predict: Predict) -> Iterator[Callable[[Tensor], Any]]:
    """A function from a CPU tensor to logits. A module is in eval mode inside, and as it was afterwards."""
    if not isinstance(predict, nn.Module):
        yield lambda images: predict(images.numpy())
        return
    device = next((tensor.device for tensor in _tensors(predict)), torch.device("cpu"))
    training = [module for module in predict.modules() if module.training]
    predict.eval()
    try:
        with torch.inference_mode():
            yield lambda images: predict(images.to(device))
    finally:
        for module in training:
            module.training = True


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _checked_logits(found: Any, count: int) -> Logits:
    logits = found.detach().float().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found, np.float32)
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] == 0:
        raise UserError(f"the predictor returned shape {logits.shape} for {count} images: expected ({count}, classes)")
    return logits


def _require_same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"cannot compare arrays of shape {a.shape} and {b.shape}")
