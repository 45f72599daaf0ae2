"""Scores (N, labels), each of which says yes or no on its own: a logit above 0, or a probability above 1/2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fimaq_deploy.measure.tasks.task import BEYOND_CHANCE, Array, Figure, Task
from fimaq_deploy.measure.tasks.vectors import COSINE


def _both(own: Array, original: Array) -> Array:
    return np.stack([own, original], 1)


def _decisions(pairs: Array) -> Array:
    """(N, 2, labels) yes or no, as -1 where a score is not finite. Which scores they are, the original's tell."""
    original = pairs[:, 1]
    threshold = 0.5 if original.min() >= 0 and original.max() <= 1 else 0.0
    return np.where(np.isfinite(pairs), pairs > threshold, -1).astype(np.int8)


def _alike(decisions: Array) -> Array:
    """(N, labels)"""
    return (decisions[:, 0] == decisions[:, 1]) & (decisions[:, 0] >= 0)


def _labels_alike(pairs: Array) -> Array:
    return _alike(_decisions(pairs))


def _shares_alike(pairs: Array) -> Array:
    return _labels_alike(pairs).mean(1)


def _kappa(decisions: Array, weights: Array) -> float:
    """Agreement beyond what each label's own frequency in the two models brings by chance: with rare labels any two
    models agree that most are absent. J. Cohen, Educ. Psychol. Meas. 20 (1960), 37-46."""
    total = weights.sum()
    alike = float((weights @ _alike(decisions)).mean() / total)
    own, original = (weights @ (decisions[:, place] > 0) / total for place in (0, 1))
    chance = float((own * original + (1 - own) * (1 - original)).mean())
    return 1.0 if chance >= 1 and alike >= 1 else (alike - chance) / max(1 - chance, 1e-12)


def _worst(alike: Array, weights: Array) -> float:
    """The share of images of the label that agrees least."""
    return float((weights @ alike).min() / weights.sum())


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Every label's images by falling score. Each array is (N, labels).

    order: which image; truth: whether it has the label; end: the last place of its group of equal scores.
    """

    order: Array
    truth: Array
    end: Array


def _with_labels(own: Array, labels: Array) -> Array:
    return np.stack([own.astype(np.float32), labels.astype(np.float32)], 1)


def _ranked(found: Array) -> _Ranking:
    scores, truth = np.nan_to_num(found[:, 0], nan=-np.inf), found[:, 1] > 0
    order = np.argsort(-scores, axis=0, kind="stable")
    falling = np.take_along_axis(scores, order, 0)
    last = np.concatenate([falling[1:] != falling[:-1], np.ones((1, falling.shape[1]), bool)])
    places = np.where(last, np.arange(len(falling))[:, None], len(falling))
    return _Ranking(order, np.take_along_axis(truth, order, 0), np.minimum.accumulate(places[::-1])[::-1])


def _mean_average_precision(ranking: _Ranking, weights: Array) -> float:
    """Over the labels that some image has. Images of one score count as found together, as in scikit-learn."""
    weight = weights[ranking.order]
    hits = weight * ranking.truth
    precision = np.cumsum(hits, 0) / np.maximum(np.cumsum(weight, 0), 1e-12)
    found, positives = (hits * np.take_along_axis(precision, ranking.end, 0)).sum(0), hits.sum(0)
    return float((found[positives > 0] / positives[positives > 0]).mean()) if positives.any() else float("nan")


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if labels.shape != own.shape or not np.isin(labels, (0, 1)).all():
        return f"labels are {labels.dtype} {labels.shape}: expected 0 or 1 for each of the {own.shape[1]} labels"
    return None


# Rare labels make plain agreement high for any model, so the floor is on what is beyond chance.
MULTILABEL = Task(
    kind="multilabel",
    fits=lambda shape: len(shape) == 2,
    expected="(N, labels)",
    figures=(
        Figure(
            name="map",
            title="mAP",
            told="{value} mAP",
            of="labels",
            parts=_with_labels,
            state=_ranked,
            value=_mean_average_precision,
            unit="%",
            headline=True,
            column=True,
        ),
        Figure(
            name="agreement",
            title="labels agree",
            told="{value} of labels as {other}",
            of="original",
            parts=_both,
            state=_shares_alike,
            unit="%",
            gate="agreement",
            headline=True,
            column=True,
        ),
        Figure(
            name="worst_agreement",
            title="worst label",
            told="{value} of the label that agrees least as {other}",
            of="original",
            parts=_both,
            state=_labels_alike,
            value=_worst,
            unit="%",
            column=True,
        ),
        Figure("kappa", "beyond chance", BEYOND_CHANCE, "original", _both, _decisions, _kappa, floor=0.6),
        COSINE,
    ),
    refuse_labels=_refuse_labels,
)
