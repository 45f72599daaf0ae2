"""Pictures of several objects, with a box, a class and a mask of each: what detectors and segmenters learn here.

Each 96×96 RGB picture shows one to five of the silhouettes of `data.shapes`, which are the classes; fills, positions,
sizes, rotations, colours, lighting, clutter and pixel noise are random. Objects may cover each other a little: boxes
and masks are those of what can be seen.

Pictures are a pure function of (split, index): splits never share a random stream, and asking for more pictures of a
split extends it without changing the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.data.shapes import OUTLINES, soft
from fimaq_deploy.models.bundled import FILLS, SILHOUETTES

CLASSES = SILHOUETTES
IMAGE_SIZE = 96
MOST = 5
"""Objects in a picture, at most."""

Split = Literal["train", "calibration", "test"]
_SPLITS: dict[str, int] = {"train": 0, "calibration": 1, "test": 2}
_CHUNK = 32
_SEED = 20261127
_TRIED = 12  # places of which an object takes the one that is farthest from the others
_FEWEST_PIXELS = 24  # what shows of an object that is one; no picture of the splits' first 4,000 has a smaller part

Array = NDArray[Any]


@dataclass(frozen=True)
class Scenes:
    """Pictures uint8 (N, 3, 96, 96); ids uint8 (N, 96, 96), the number of the object that a pixel shows, 0 for none;
    classes int64 (N, 5), of objects 1 to 5, -1 where there is none."""

    images: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def rows(self, which: slice) -> Scenes:
        return Scenes(self.images[which], self.ids[which], self.classes[which])

    def masks(self) -> NDArray[np.bool_]:
        """(N, 5, 96, 96): the pixels that show each object."""
        return self.ids[:, None] == np.arange(1, MOST + 1, dtype=np.uint8)[:, None, None]

    def boxes(self) -> NDArray[np.float32]:
        """(N, 5, 4): left, top, right and bottom edge in pixels; zeros where there is no object."""
        masks = self.masks()
        left, right = _extent(np.any(masks, axis=2))
        top, bottom = _extent(np.any(masks, axis=3))
        return np.stack([left, top, right, bottom], -1).astype(np.float32)

    def maps(self) -> NDArray[np.int64]:
        """(N, 96, 96): 0 for the background, else 1 + the class of the object that a pixel shows."""
        of = np.concatenate([np.full((len(self.ids), 1), -1), self.classes], 1)
        return np.take_along_axis(of, self.ids.reshape(len(of), -1).astype(np.int64), 1).reshape(self.ids.shape) + 1

    def objects(self) -> dict[str, Array]:
        """Boxes, labels and masks as `data.objects` packs them: label -1 where there is no object."""
        return {"boxes": self.boxes(), "labels": self.classes, "masks": self.masks()}


def generate(split: Split, count: int, first: int = 0) -> Scenes:
    """`count` pictures of a split from number `first` on."""
    chunks = [_chunk(split, index) for index in range(first // _CHUNK, -(-(first + count) // _CHUNK))]
    if not chunks:
        size = (0, IMAGE_SIZE, IMAGE_SIZE)
        return Scenes(np.zeros((0, 3, *size[1:]), np.uint8), np.zeros(size, np.uint8), np.zeros((0, MOST), np.int64))
    start = first % _CHUNK
    return Scenes(*(np.concatenate(parts)[start : start + count] for parts in zip(*chunks, strict=True)))


def _chunk(split: Split, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng([_SEED, _SPLITS[split], index])
    counts = rng.integers(1, MOST + 1, _CHUNK)
    classes = rng.integers(0, len(CLASSES), (_CHUNK, MOST))
    radii = rng.uniform(0.17, 0.38, (_CHUNK, MOST)).astype(np.float32)
    places = _places(rng, radii, counts)
    image = _background(rng)
    ids = np.zeros((_CHUNK, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for number in range(MOST):
        present = number < counts
        inside, painted = _object(rng, image, classes[:, number], radii[:, number], places[:, number])
        inside = inside * present[:, None, None]
        image = image + (painted - image) * inside[:, None]
        ids[inside > 0.5] = number + 1
    image = image + _uniform(rng, 0.02, 0.1, 1, 1, 1) * rng.standard_normal(image.shape, np.float32)
    shown = (ids[:, None] == np.arange(1, MOST + 1)[:, None, None]).sum((2, 3)) >= _FEWEST_PIXELS
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels, ids, np.where(shown, classes, -1)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    return rng.uniform(low, high, (_CHUNK, *shape)).astype(np.float32)


def _grid() -> tuple[Array, Array]:
    axis = (np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5) / IMAGE_SIZE * 2 - 1
    return axis[None, None, :], axis[None, :, None]


def _places(rng: np.random.Generator, radii: Array, counts: Array) -> Array:
    """Centres (chunk, 5, 2) in [-1, 1], whole objects inside the picture and few over each other."""
    places = np.zeros((_CHUNK, MOST, 2), np.float32)
    for number in range(MOST):
        room = (0.98 - radii[:, number])[:, None, None]
        tried = rng.uniform(-1, 1, (_CHUNK, _TRIED, 2)).astype(np.float32) * room
        between = np.linalg.norm(tried[:, :, None] - places[:, None, :number], axis=-1)
        gaps = between - radii[:, None, :number] - radii[:, None, number, None]
        nearest = np.minimum(gaps.min(-1, initial=0.05), 0.05)  # far enough is far enough
        places[:, number] = tried[np.arange(_CHUNK), nearest.argmax(1)]
    return places


def _background(rng: np.random.Generator) -> Array:
    """A tilted colour with soft blobs, float (chunk, 3, 96, 96)."""
    grid_x, grid_y = _grid()
    tilt = _uniform(rng, -0.2, 0.2, 2, 1, 1)
    image = _uniform(rng, 0.15, 0.85, 3, 1, 1) + (tilt[:, :1] * grid_x[:, None] + tilt[:, 1:] * grid_y[:, None])
    for _ in range(5):
        away = np.hypot(grid_x - _uniform(rng, -1, 1, 1, 1), grid_y - _uniform(rng, -1, 1, 1, 1))
        blob = soft(_uniform(rng, 0.05, 0.25, 1, 1) - away, 14.0)[:, None]
        image = image + _uniform(rng, -0.2, 0.2, 3, 1, 1) * blob
    return image


def _object(rng: np.random.Generator, image: Array, kind: Array, radius: Array, place: Array) -> tuple[Array, Array]:
    """How much of each pixel an object covers (chunk, 96, 96), and what it paints there (chunk, 3, 96, 96)."""
    grid_x, grid_y = _grid()
    angle = _uniform(rng, 0, 2 * np.pi, 1, 1)
    dx, dy = grid_x - place[:, 0, None, None], grid_y - place[:, 1, None, None]
    cos, sin, size = np.cos(angle), np.sin(angle), radius[:, None, None]
    x, y = (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size
    distance = np.empty_like(x)
    for number, name in enumerate(CLASSES):
        rows = kind == number
        distance[rows] = OUTLINES[name](x[rows], y[rows])
    inside = soft(distance * size, 60.0)
    return inside, _paint(rng, image, x, y, inside)


def _paint(rng: np.random.Generator, image: Array, x: Array, y: Array, inside: Array) -> Array:
    """A colour that stands out from what lies behind, and a second one in stripes or spots."""
    behind = (image * inside[:, None]).sum((2, 3), keepdims=True) / (inside.sum((1, 2))[:, None, None, None] + 1e-3)
    away = np.where(behind < 0.5, 1, -1) * _uniform(rng, 0.15, 0.5, 3, 1, 1)
    first = np.clip(behind + away, 0, 1)
    second = np.clip(first + np.where(first > 0.5, -1, 1) * _uniform(rng, 0.15, 0.45, 1, 1, 1), 0, 1)
    pitch, phase = _uniform(rng, 7.5, 10.5, 1, 1), _uniform(rng, 0, 2 * np.pi, 2, 1)
    wave_x, wave_y = np.sin(pitch * x + phase[:, :1]), np.sin(pitch * y + phase[:, 1:])
    fill = rng.integers(0, len(FILLS), _CHUNK)[:, None, None]
    texture = np.select([fill == 1, fill == 2], [soft(wave_x, 6.0), soft(wave_x * wave_y - 0.15, 8.0)], 0.0)
    return first + (second - first) * texture[:, None]


def _extent(hit: Array) -> tuple[Array, Array]:
    """Where the first and behind which the last true entry of (N, objects, length) lies; zeros where there is none."""
    some = hit.any(-1)
    return np.where(some, hit.argmax(-1), 0), np.where(some, hit.shape[-1] - hit[..., ::-1].argmax(-1), 0)
