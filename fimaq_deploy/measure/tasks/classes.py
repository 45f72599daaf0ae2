"""Logits (N, classes) of a classifier: the largest one is the answer."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.measure.tasks.task import BEYOND_CHANCE, Array, Figure, Task
from fimaq_deploy.measure.tasks.vectors import COSINE

NO_PREDICTION = -1


def predicted(logits: Array) -> Array:
    """The class with the largest logit of each row, or -1 where a logit of the row is not finite."""
    return np.where(np.isfinite(logits).all(1), logits.argmax(1), NO_PREDICTION).astype(np.int64)


def _ranks(logits: Array, labels: Array) -> Array:
    """How many classes come before the label, (N,); every class where a logit is not finite. Ties go to the lower."""
    classes = logits.shape[1]
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    before = ((logits > own) | ((logits == own) & earlier)).sum(1)
    return np.where(np.isfinite(logits).all(1), before, classes)


def _within(first: int) -> Figure:
    """Whether the label is among the first so many classes."""
    return Figure(
        name=f"top{first}",
        title=f"top-{first}",
        told=f"{{value}} top-{first}",
        of="labels",
        parts=lambda logits, labels: _ranks(logits, labels) < first,
        unit="%",
        share=True,
        headline=first == 1,
        column=True,
        applies=lambda logits, labels: logits.shape[1] > first,
    )


def _alike(own: Array, original: Array) -> Array:
    """An image without a prediction agrees with nothing."""
    found = predicted(own)
    return (found == predicted(original)) & (found != NO_PREDICTION)


def _divergence(own: Array, original: Array) -> Array:
    """KL(original ‖ own) of each image's distribution, in nats."""
    given = _are_probabilities(original)
    p, q = _log_distribution(original, given), _log_distribution(own, given)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.exp(p) * (p - q)).sum(1))


def _are_probabilities(rows: Array) -> bool:
    """Whether the model ends in a softmax."""
    return bool((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3))


def _log_distribution(rows: Array, given: bool) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        if given:
            return np.log(np.maximum(rows.astype(np.float64), 1e-12))
        shifted = rows.astype(np.float64) - rows.max(1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _pair(own: Array, original: Array) -> Array:
    return np.stack([predicted(own), predicted(original)], 1)


def _kappa(pairs: Array, weights: Array) -> float:
    """Agreement beyond what the two models' shares of each class bring by chance; 1 where there is but one answer.

    J. Cohen, Educ. Psychol. Meas. 20 (1960), 37-46.
    """
    own, original = (pairs - NO_PREDICTION).T
    total = weights.sum()
    alike = np.dot((own == original) & (own != 0), weights) / total
    size = int(pairs.max()) + 2
    shares = [np.bincount(one, weights, size) / total for one in (own, original)]
    chance = float(np.dot(*shares))
    return 1.0 if chance >= 1 and alike >= 1 else float((alike - chance) / max(1 - chance, 1e-12))


def _refuse_labels(logits: Array, labels: Array) -> str | None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return f"labels are {labels.dtype} {labels.shape}: expected one class an image, as integers"
    wrong = labels[(labels < 0) | (labels >= logits.shape[1])]
    if len(wrong):
        return f"label {wrong[0]}: expected one of the {logits.shape[1]} classes that the model outputs, from 0"
    return None


# Below the floor half of what chance does not explain is lost: 55 % agreement of ten classes, 50 % of a thousand. The
# weakest published W3A3 models agree on more.
CLASSES = Task(
    kind="classes",
    fits=lambda shape: len(shape) == 2 and shape[1] > 1,
    expected="(N, classes)",
    figures=(
        _within(1),
        _within(5),
        Figure(
            name="agreement",
            title="agree",
            told="{value} of predictions as {other}",
            of="original",
            parts=_alike,
            unit="%",
            share=True,
            gate="agreement",
            headline=True,
            column=True,
        ),
        Figure("kappa", "beyond chance", BEYOND_CHANCE, "original", _pair, value=_kappa, floor=0.5),
        Figure(
            "kl",
            "KL",
            "KL divergence {value} from {other}",
            "original",
            _divergence,
            higher_is_better=False,
            column=True,
        ),
        COSINE,
    ),
    refuse_labels=_refuse_labels,
)
