"""Figures of positions: patches of an encoder, or the places of a map, which have a vector each.

Besides how far each vector moved they tell what dense features are used for: whether a position still finds the same
position in another image (correspondence, tracking, copying of labels). That looks at the first 64 images, each beside
the next one, and at up to 49 positions of each, evenly over the image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fimaq_deploy.measure.tasks.probes import unit
from fimaq_deploy.measure.tasks.task import Array, Figure
from fimaq_deploy.measure.tasks.vectors import EXPLAINED, both, position_cosines

_IMAGES = 64
_POSITIONS = 49
_SIDE = 7  # of a map; 49 positions together
_ALIKE = 1e-3  # cosines that differ by less tell two positions of the original apart by chance


def some(outputs: Array) -> Array:
    """(images, at most 49, size) of (images, ..., size)."""
    if outputs.ndim == 4:
        rows, columns = (spread(size, _SIDE) for size in outputs.shape[1:3])
        return outputs[:, rows][:, :, columns].reshape(len(outputs), -1, outputs.shape[-1])
    flat = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    return flat[:, spread(flat.shape[1], _POSITIONS)]


def spread(size: int, count: int) -> Array:
    """At most `count` of `size` places, evenly, both ends among them."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(np.int64))


def _both(own: Array, original: Array) -> Array:
    return both(some(own), some(original))


def _worst(own: Array, original: Array) -> Array:
    """(images,) the cosine that one position in twenty falls short of."""
    found = position_cosines(own, original).reshape(len(own), -1)
    return np.quantile(found, 0.05, axis=1)


def _same_nearest(pairs: Array) -> Array:
    """(images,) the share of positions whose nearest position in the next image is the original's, or one that the
    original finds as near."""
    if len(pairs) < 2:  # an image beside itself
        return np.full(len(pairs), np.nan)
    following = np.roll(np.arange(len(pairs)), -1)
    return np.array([_kept(pairs[one], pairs[next_one]) for one, next_one in enumerate(following)])


def _kept(pair: Array, other: Array) -> float:
    own, original = (unit(pair[place]) @ unit(other[place]).T for place in (0, 1))
    rows = np.arange(len(own))
    near = original[rows, own.argmax(1)] >= original.max(1) - _ALIKE
    return float((near & np.isfinite(pair[0]).all(-1)).mean())


# What differs between images, at the same positions.
EXPLAINED_POSITIONS = replace(EXPLAINED, parts=_both, most=_IMAGES)
WORST = Figure(
    name="worst",
    title="worst 5 %",
    told="cosine {value} with {other} at the worst 5 % of positions",
    of="original",
    parts=_worst,
    column=True,
)
NEAREST = Figure(
    name="nearest",
    title="same nearest",
    told="{value} of positions with the nearest of the next image as {other}",
    of="original",
    parts=_both,
    state=_same_nearest,
    unit="%",
    gate="agreement",
    column=True,
    most=_IMAGES,
)
