"""Objects in pictures, found or true, as one array an image: boxes, scores, labels and, where there are any, masks.

    columns 0 to 3   left, top, right and bottom edge, in pixels
    column 4         the score; of a true object 1, or 0 where it stands for a crowd that is not to be counted
    column 5         the label; -1 in a place that is empty
    columns 6 on     16 pixels of the mask each, as a whole number: 65,536 of them are exact in float32

So what finds objects and what is known of them batch, stack and draw like any other array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

OBJECTS = "objects"
"""How an output of objects is called."""
KEYS = frozenset({"boxes", "scores", "labels"})
"""What a detector's answer holds at least, as arrays; `masks` too where it has any."""

_SCORE, _LABEL, _MASK = 4, 5, 6
_BITS = 16

Array = NDArray[Any]
Floats = NDArray[np.float32]


def pack_objects(found: Mapping[str, Array]) -> Floats:
    """(N, objects, 6 or more) from boxes (N, objects, 4), labels (N, objects), scores (N, objects), 1 where they are
    missing, masks bool (N, objects, H, W) and crowd bool (N, objects)."""
    boxes, labels = np.asarray(found["boxes"], np.float32), np.asarray(found["labels"])
    scores = np.asarray(found.get("scores", np.ones(labels.shape)), np.float32)
    if found.get("crowd") is not None:
        scores = np.where(found["crowd"], np.float32(0), scores)
    columns = [boxes, scores[..., None], labels[..., None].astype(np.float32)]
    if found.get("masks") is not None:
        columns.append(_packed(np.asarray(found["masks"], bool)))
    return np.concatenate(columns, -1, dtype=np.float32)


def boxes_of(objects: Array) -> Array:
    return objects[..., :_SCORE]


def scores_of(objects: Array) -> Array:
    return objects[..., _SCORE]


def labels_of(objects: Array) -> NDArray[np.int64]:
    return objects[..., _LABEL].astype(np.int64)


def has_masks(objects: Array) -> bool:
    return objects.shape[-1] > _MASK


def masks_fit(objects: Array, height: int, width: int) -> bool:
    """Whether the masks are of images of that size, as far as their number of pixels tells."""
    return objects.shape[-1] - _MASK == -(-height * width // _BITS)


def masks_of(objects: Array, height: int, width: int) -> NDArray[np.bool_]:
    """(..., height, width)"""
    octets = _words(objects).view(np.uint8)
    pixels = np.unpackbits(octets, axis=-1)[..., : height * width]
    return pixels.reshape(*objects.shape[:-1], height, width).astype(bool)


def box_overlaps(a: Array, b: Array, crowd: NDArray[np.bool_] | None = None) -> Array:
    """(A, B) the intersection of boxes of (A, 6 or more) and (B, 6 or more) over the union; of crowds over a's area."""
    near = np.maximum(a[:, None, :2], b[None, :, :2]).astype(np.float64)
    far = np.minimum(a[:, None, 2:4], b[None, :, 2:4]).astype(np.float64)
    shared = np.clip(far - near, 0, None).prod(-1)
    return _ratio(shared, _area(a), _area(b), crowd)


def mask_overlaps(a: Array, b: Array, crowd: NDArray[np.bool_] | None = None) -> Array:
    """The same of their masks."""
    own, other = _words(a), _words(b)
    shared = np.array([np.bitwise_count(row & other).sum(-1) for row in own], np.float64).reshape(len(a), len(b))
    return _ratio(shared, _count(own), _count(other), crowd)


def _ratio(shared: Array, own: Array, other: Array, crowd: NDArray[np.bool_] | None) -> Array:
    union = own[:, None] + other - shared
    if crowd is not None:
        union = np.where(crowd, own[:, None], union)
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def _count(words: NDArray[np.uint16]) -> Array:
    return np.bitwise_count(words).sum(-1).astype(np.float64)


def _area(objects: Array) -> Array:
    return np.clip(objects[:, 2:4] - objects[:, :2], 0, None).astype(np.float64).prod(-1)


def _packed(masks: NDArray[np.bool_]) -> Floats:
    flat = masks.reshape(*masks.shape[:2], -1)
    short = -flat.shape[-1] % _BITS
    octets = np.packbits(np.pad(flat, ((0, 0), (0, 0), (0, short))), axis=-1)
    return octets.view(np.uint16).astype(np.float32)


def _words(objects: Array) -> NDArray[np.uint16]:
    return np.ascontiguousarray(objects[..., _MASK:]).astype(np.uint16)
