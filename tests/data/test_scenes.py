from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fimaq_deploy.data import scenes


def test_pictures_and_their_objects() -> None:
    found = scenes.generate("test", 40)
    assert (found.images.shape, found.images.dtype) == ((40, 3, 96, 96), np.uint8)
    objects = found.objects()
    shown = objects["labels"] >= 0
    assert set(objects["labels"][shown]) == set(range(8))
    assert set(shown.sum(1)) == {1, 2, 3, 4, 5}
    assert np.array_equal(objects["masks"].any((2, 3)), shown)
    assert (objects["masks"].sum(1) <= 1).all(), "a pixel shows one object"


def test_boxes_are_the_edges_of_masks() -> None:
    found = scenes.generate("test", 20)
    for boxes, masks in zip(found.boxes(), found.masks(), strict=True):
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if mask.any() else [0] * 4
            assert box.tolist() == edges


def test_maps_are_the_classes_of_masks() -> None:
    found = scenes.generate("test", 20)
    maps, masks = found.maps(), found.masks()
    assert np.array_equal(maps > 0, masks.any(1))
    for image, place in np.argwhere(found.classes >= 0):
        assert set(maps[image][masks[image, place]]) == {found.classes[image, place] + 1}


def test_more_pictures_extend_a_split_and_any_can_be_had_alone() -> None:
    many = scenes.generate("calibration", 40)
    few, later = scenes.generate("calibration", 5), scenes.generate("calibration", 6, first=30)
    assert np.array_equal(few.images, many.images[:5])
    assert np.array_equal(later.images, many.images[30:36])
    assert np.array_equal(later.ids, many.ids[30:36])
    assert len(scenes.generate("test", 0).boxes()) == 0


def test_splits_are_disjoint() -> None:
    splits: tuple[Any, ...] = ("train", "calibration", "test")
    found = {image.tobytes() for split in splits for image in scenes.generate(split, 32).images}
    assert len(found) == 3 * 32


@pytest.mark.parametrize("kind", range(8))
def test_every_class_stands_out(kind: int) -> None:
    found = scenes.generate("test", 32)
    images, masks = found.images.astype(float), found.masks()
    away = [
        np.abs(images[image][:, masks[image, place]].mean(1) - images[image][:, found.ids[image] == 0].mean(1)).max()
        for image, place in np.argwhere(found.classes == kind)
    ]
    assert np.median(away) > 15
