"""A procedural image set that is hard enough to tell quantizers apart.

Each 32×32 RGB image shows one object: one of eight silhouettes filled in one of three ways, so there are 24 classes.
Position, size, rotation, colours, contrast, lighting, clutter, an occluding bar and pixel noise are random. Every class
stays tellable under every nuisance: a fill is named by its kind (plain, striped, spotted), never by its direction,
and silhouettes differ by more than a rotation.

Images are a pure function of (split, index): splits never share a random stream, and asking for more images of a split
extends it without changing the first ones.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.models.bundled import FILLS, SHAPES, SILHOUETTES

CLASSES = SHAPES
IMAGE_SIZE = 32

Split = Literal["train", "calibration", "test"]
_SPLITS: dict[str, int] = {"train": 0, "calibration": 1, "test": 2}
_CHUNK = 256
_SEED = 20251106

Array = NDArray[Any]


def generate(split: Split, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `count` images of a split.

    Returns images as uint8 (count, 3, 32, 32) and labels as int64 (count,) in [0, 24).
    """
    chunks = [_chunk(split, index) for index in range(-(-count // _CHUNK))]
    if not chunks:
        return np.zeros((0, 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8), np.zeros(0, np.int64)
    images, labels = (np.concatenate(parts)[:count] for parts in zip(*chunks, strict=True))
    return images, labels


def _chunk(split: Split, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng([_SEED, _SPLITS[split], index])
    labels = rng.integers(0, len(CLASSES), _CHUNK)
    silhouette, fill = labels // len(FILLS), labels % len(FILLS)
    x, y = _object_coordinates(rng)
    inside = soft(_signed_distance(x, y, silhouette), 12.0)
    texture = _texture(rng, x, y, fill)
    image = _compose(rng, inside, texture)
    return np.round(image * 255).astype(np.uint8), labels.astype(np.int64)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    return rng.uniform(low, high, (_CHUNK, *shape)).astype(np.float32)


def _pixel_grid() -> tuple[Array, Array]:
    axis = (np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5) / IMAGE_SIZE * 2 - 1
    return axis[None, None, :], axis[None, :, None]


def _object_coordinates(rng: np.random.Generator) -> tuple[Array, Array]:
    """Pixel coordinates in the frame of each object, whose radius is about 1. Two arrays (chunk, 32, 32)."""
    grid_x, grid_y = _pixel_grid()
    radius, angle = _uniform(rng, 0.5, 0.8, 1, 1), _uniform(rng, 0, 2 * np.pi, 1, 1)
    dx, dy = grid_x - _uniform(rng, -0.2, 0.2, 1, 1), grid_y - _uniform(rng, -0.2, 0.2, 1, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    return (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius


def _signed_distance(x: Array, y: Array, silhouette: NDArray[np.int64]) -> Array:
    """Roughly the distance to the outline, positive inside. (chunk, 32, 32)."""
    out = np.empty_like(x)
    for kind, name in enumerate(SILHOUETTES):
        rows = silhouette == kind
        out[rows] = OUTLINES[name](x[rows], y[rows])
    return out


def _disc(x: Array, y: Array) -> Array:
    return 0.95 - np.hypot(x, y)


def _square(x: Array, y: Array) -> Array:
    return 0.82 - np.maximum(np.abs(x), np.abs(y))


def _triangle(x: Array, y: Array) -> Array:
    sides = [np.cos(a) * x + np.sin(a) * y for a in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
    return 0.55 - np.maximum.reduce(sides)


def _star(x: Array, y: Array) -> Array:
    spike = np.abs((np.arctan2(y, x) / (2 * np.pi) * 5) % 1 - 0.5) * 2
    return 0.42 + 0.68 * spike - np.hypot(x, y)


def _cross(x: Array, y: Array) -> Array:
    wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.minimum(1.0 - wide, 0.34 - narrow)


def _ring(x: Array, y: Array) -> Array:
    return 0.27 - np.abs(np.hypot(x, y) - 0.74)


def _crescent(x: Array, y: Array) -> Array:
    return np.minimum(1.0 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.72)


def _ellipse(x: Array, y: Array) -> Array:
    return (1.0 - np.hypot(x, y / 0.48)) * 0.6


OUTLINES = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "ellipse": _ellipse,
}


def soft(distance: Array, sharpness: float) -> Array:
    """An anti-aliased step."""
    return 1 / (1 + np.exp(-np.clip(distance * sharpness, -30, 30)))


def _texture(rng: np.random.Generator, x: Array, y: Array, fill: NDArray[np.int64]) -> Array:
    """How much of the second colour each pixel takes, in [0, 1]. (chunk, 32, 32)."""
    pitch, phase = _uniform(rng, 7.5, 10.5, 1, 1), _uniform(rng, 0, 2 * np.pi, 2, 1)
    wave_x, wave_y = np.sin(pitch * x + phase[:, :1]), np.sin(pitch * y + phase[:, 1:])
    stripes, spots = soft(wave_x, 6.0), soft(wave_x * wave_y - 0.15, 8.0)
    return np.select([(fill == 1)[:, None, None], (fill == 2)[:, None, None]], [stripes, spots], 0.0)


def _compose(rng: np.random.Generator, inside: Array, texture: Array) -> Array:
    """Colours, lighting, clutter, an occluding bar and noise. Returns float (chunk, 3, 32, 32) in [0, 1]."""
    grid_x, grid_y = _pixel_grid()
    background, foreground = _uniform(rng, 0.1, 0.9, 3, 1, 1), _uniform(rng, 0.0, 1.0, 3, 1, 1)
    away = np.where(foreground > background, 1, -1) * _uniform(rng, 0.12, 0.5, 1, 1, 1)
    foreground = np.clip(foreground + away, 0, 1)
    second = np.clip(foreground + np.where(foreground > 0.5, -1, 1) * _uniform(rng, 0.3, 0.6, 1, 1, 1), 0, 1)
    tilt = _uniform(rng, -0.2, 0.2, 2, 1, 1)
    image = background + (tilt[:, :1] * grid_x[:, None] + tilt[:, 1:] * grid_y[:, None])
    image = _clutter(rng, image)
    painted = foreground + (second - foreground) * texture[:, None]
    image = image + (painted - image) * inside[:, None]
    image = _occlude(rng, image)
    image = image + _uniform(rng, 0.02, 0.16, 1, 1, 1) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 1)


def _clutter(rng: np.random.Generator, image: Array) -> Array:
    """Three soft blobs behind the object."""
    grid_x, grid_y = _pixel_grid()
    for _ in range(3):
        cx, cy, size = (
            _uniform(rng, -1, 1, 1, 1),
            _uniform(rng, -1, 1, 1, 1),
            _uniform(rng, 0.1, 0.35, 1, 1),
        )
        blob = soft(size - np.hypot(grid_x - cx, grid_y - cy), 12.0)[:, None]
        image = image + _uniform(rng, -0.35, 0.35, 3, 1, 1) * blob
    return image


def _occlude(rng: np.random.Generator, image: Array) -> Array:
    """A thin bar across part of the image, on half of the images."""
    grid_x, grid_y = _pixel_grid()
    angle, offset = _uniform(rng, 0, np.pi, 1, 1), _uniform(rng, -0.7, 0.7, 1, 1)
    width = _uniform(rng, 0.04, 0.1, 1, 1) * (_uniform(rng, 0, 1, 1, 1) < 0.5)
    across = np.cos(angle) * grid_x + np.sin(angle) * grid_y - offset
    bar = (soft(width - np.abs(across), 30.0) * (width > 0))[:, None]
    return image + (_uniform(rng, 0, 1, 3, 1, 1) - image) * bar
