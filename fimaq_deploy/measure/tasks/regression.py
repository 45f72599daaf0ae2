"""Numbers (N,) or (N, columns), each with a meaning of its own: never an answer by argmax, not even of one column."""

from __future__ import annotations

import numpy as np

from fimaq_deploy.measure.tasks.task import Array, Figure, Task


def columns(values: Array) -> Array:
    """(N, columns)"""
    return values.reshape(len(values), -1).astype(np.float64)


def _both(own: Array, reference: Array) -> Array:
    """(N, 2, columns)"""
    return np.stack([columns(own), columns(reference)], 1)


def _mean_error(own: Array, reference: Array) -> Array:
    """(N,) the absolute error, averaged over columns."""
    return np.abs(columns(own) - columns(reference)).mean(1)


def _relative_error(pairs: Array, weights: Array) -> float:
    """All errors of a column over all its values, averaged over columns: single values near 0 do no harm."""
    error, size = (weights @ np.abs(one) for one in (pairs[:, 0] - pairs[:, 1], pairs[:, 1]))
    return float(np.where(size > 0, error / np.where(size > 0, size, 1), error > 0).mean())


def _moments(pairs: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Means (2, columns), variances (2, columns) and covariance (columns,)."""
    share = weights / weights.sum()
    mean = np.einsum("n,npc->pc", share, pairs)
    away = pairs - mean
    return mean, np.einsum("n,npc->pc", share, away**2), np.einsum("n,nc->c", share, away[:, 0] * away[:, 1])


def _correlation(pairs: Array, weights: Array) -> float:
    """Pearson's, averaged over columns; not a number where the original does not vary."""
    _, (own, original), together = _moments(pairs, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(own > 0, together / np.sqrt(own * original), 0.0)
        return float(np.where(original > 0, found, np.nan).mean())


def _concordance(pairs: Array, weights: Array) -> float:
    """How near the pairs lie to own = original, averaged over columns: unlike the correlation it sees an offset and a
    factor. 1 only for equal values. L. I.-K. Lin, Biometrics 45 (1989), 255-268."""
    mean, (own, original), together = _moments(pairs, weights)
    apart = own + original + (mean[0] - mean[1]) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(apart > 0, 2 * together / apart, 1.0).mean())


def _refuse_labels(own: Array, labels: Array) -> str | None:
    if not np.issubdtype(labels.dtype, np.floating):
        return (
            f"labels are {labels.dtype}, as of classes: a regression output is measured against floating-point values"
        )
    if columns(labels).shape != columns(own).shape:
        return f"labels have shape {labels.shape}: expected that of the output, {own.shape}"
    return None


# Below the floor a fifth of the way to the original's values is lost.
REGRESSION = Task(
    kind="regression",
    fits=lambda shape: len(shape) <= 2,
    expected="(N,) or (N, columns)",
    figures=(
        Figure("mae", "MAE", "MAE {value}", "labels", _mean_error, higher_is_better=False, headline=True, column=True),
        Figure(
            name="concordance",
            title="concordance",
            told="concordance {value} with {other}",
            of="original",
            parts=_both,
            value=_concordance,
            gate="cosine",
            floor=0.8,
            headline=True,
            column=True,
        ),
        Figure(
            name="correlation",
            title="correlation",
            told="correlation {value} with {other}",
            of="original",
            parts=_both,
            value=_correlation,
        ),
        Figure(
            name="relative_error",
            title="rel. error",
            told="relative error {value} against {other}",
            of="original",
            parts=_both,
            value=_relative_error,
            unit="%",
            higher_is_better=False,
            column=True,
        ),
        Figure(
            name="difference",
            title="mean diff.",
            told="mean difference {value} from {other}",
            of="original",
            parts=_mean_error,
            higher_is_better=False,
        ),
    ),
    refuse_labels=_refuse_labels,
)
