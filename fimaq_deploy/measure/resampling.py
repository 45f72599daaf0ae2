"""How sure a figure is: Wilson's interval of a share, the bootstrap over images of everything else.

The resamples depend on the number of images alone, so those of two models, or of two builds, are the same draws of the
same images: differences between their replicates are those of paired measurements.

B. Efron, Ann. Statist. 7 (1979), 1-26; percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.measure.tasks.task import Array, Figure

Interval = tuple[float, float]

_Z95 = 1.959964
_RESAMPLES = 400
_LEAST_RESAMPLES = 40
_NUMBERS_READ = 4 * 10**8  # by all resamples of one figure together


@dataclass(frozen=True, eq=False)
class Measured:
    """A figure of one output.

    interval: 95 %; None where it cannot be told. images: (images,) each image's own, where the figure is their mean.
    replicates: the figure of each resample, where it is no mean of images.
    """

    output: str
    figure: Figure
    value: float
    interval: Interval | None
    images: NDArray[np.float32] | None = None
    replicates: NDArray[np.float32] | None = None


def measured(output: str, figure: Figure, parts: Array) -> Measured:
    """The figure from the parts of all images."""
    state = figure.state(parts)
    count = len(state) if figure.is_mean else len(parts)
    scale = 100.0 if figure.unit == "%" else 1.0
    value = scale * figure.value(state, np.ones(count))
    if figure.share:
        return Measured(output, figure, value, _share_interval(state), scale * state.astype(np.float32))
    replicates = scale * _replicates(figure.value, state, count, parts.size)
    own = scale * state.astype(np.float32) if figure.is_mean else None
    interval = percentiles(replicates) if isfinite(value) and count > 1 else None
    return Measured(output, figure, value, interval, own, None if figure.is_mean else replicates)


def resampled(images: int, count: int = _RESAMPLES) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn, `count` times. The stream of RandomState is the same in every NumPy."""
    random = np.random.RandomState(0)
    for _ in range(count):
        yield np.bincount(random.randint(0, images, images), minlength=images).astype(np.float64)


def percentiles(replicates: Array) -> Interval | None:
    """The middle 95 % of those that are finite."""
    found = replicates[np.isfinite(replicates)]
    if not len(found):
        return None
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def wilson_interval(hits: int, count: int) -> Interval:
    """The 95 % interval of a share, in percent. E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    share, z2 = hits / count, _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _share_interval(hits: Array) -> Interval:
    return wilson_interval(int(np.nan_to_num(hits).sum()), len(hits))


def _replicates(value: Callable[[Any, Array], float], state: Any, images: int, numbers: int) -> NDArray[np.float32]:
    """Fewer for a figure that reads very many numbers."""
    count = min(_RESAMPLES, max(_LEAST_RESAMPLES, _NUMBERS_READ // max(numbers, 1)))
    return np.array([value(state, weights) for weights in resampled(images, count)], np.float32)
