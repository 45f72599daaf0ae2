from __future__ import annotations

import numpy as np
import pytest
from fixtures.objects import found_objects, true_objects

from fimaq_deploy.data.objects import (
    box_overlaps,
    boxes_of,
    has_masks,
    labels_of,
    mask_overlaps,
    masks_of,
    pack_objects,
    scores_of,
)


def test_objects_come_out_as_they_went_in() -> None:
    found = found_objects(true_objects(3))
    packed = pack_objects(found)
    assert packed.dtype == np.float32
    assert np.array_equal(boxes_of(packed), found["boxes"])
    assert np.array_equal(scores_of(packed), found["scores"])
    assert np.array_equal(labels_of(packed), found["labels"])
    assert np.array_equal(masks_of(packed, 96, 96), found["masks"])


@pytest.mark.parametrize("side", [3, 4, 7])
def test_masks_of_any_size(side: int) -> None:
    masks = np.random.default_rng(0).random((2, 3, side, side + 1)) < 0.5
    packed = pack_objects({"boxes": np.zeros((2, 3, 4)), "labels": np.zeros((2, 3)), "masks": masks})
    assert np.array_equal(masks_of(packed, side, side + 1), masks)


def test_what_is_true_has_a_score_of_one_and_a_crowd_of_zero() -> None:
    truth = {"boxes": np.zeros((1, 2, 4)), "labels": np.zeros((1, 2)), "crowd": np.array([[False, True]])}
    packed = pack_objects(truth)
    assert scores_of(packed).tolist() == [[1, 0]]
    assert not has_masks(packed)


def test_overlaps_of_boxes_and_masks() -> None:
    """Masks that fill their boxes overlap as these do."""
    boxes = np.array([[[0, 0, 4, 4], [2, 0, 6, 4], [6, 6, 8, 8]]], np.float32)
    masks = np.zeros((1, 3, 8, 8), bool)
    for place, (left, top, right, bottom) in enumerate(boxes[0].astype(int)):
        masks[0, place, top:bottom, left:right] = True
    packed = pack_objects({"boxes": boxes, "labels": np.zeros((1, 3)), "masks": masks})[0]
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    assert box_overlaps(packed, packed) == pytest.approx(np.array(expected))
    assert mask_overlaps(packed, packed) == pytest.approx(np.array(expected))
    crowd = np.array([False, True, False])
    assert box_overlaps(packed, packed, crowd)[0].tolist() == [1, 0.5, 0]
    assert mask_overlaps(packed, packed, crowd)[0].tolist() == [1, 0.5, 0]
    assert box_overlaps(packed[:0], packed).shape == mask_overlaps(packed[:0], packed).shape == (0, 3)
