"""Boxes go into the input where the pixels go, and come back where they came from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixtures import coco
from PIL import Image

from fimaq_deploy.data.places import fitted, place

BOXES = np.array(
    [[4, 6, 20, 30], [30, 10, 46, 50], [70, 40, 96, 64], [92, 0, 96, 4]], np.float32
)  # of 96 wide, 64 high


@pytest.mark.parametrize(
    ("mode", "share", "size"),
    [("center", 1.0, (32, 32)), ("center", 0.8, (32, 48)), ("border", 1.0, (40, 40)), ("squash", 1.0, (32, 24))],
)
def test_boxes_go_where_their_pixels_go(mode: str, share: float, size: tuple[int, int]) -> None:
    """What is drawn in a box is found in the box that is shown, as far as the crop leaves it."""
    contract = replace(coco.info(size), crop_mode=mode, crop_pct=share).contract()
    contract = replace(contract, interpolation="nearest")
    found, kept = place((64, 96), contract).shown(BOXES, size)
    for box, shown, is_kept in zip(BOXES, found, kept, strict=True):
        drawn: Any = np.zeros((64, 96), np.uint8)
        left, top, right, bottom = box.astype(int)
        drawn[top:bottom, left:right] = 255
        rows, columns = np.nonzero(np.asarray(fitted(Image.fromarray(drawn), contract, fill=0)))
        assert is_kept == (len(rows) > 0)
        if is_kept:
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(shown - edges).max() <= 1, "nearest pixels are within one of where the edge is"


def test_a_whole_image_keeps_every_box_and_none_is_cut() -> None:
    squashed = replace(coco.info((48, 48)), crop_mode="squash", crop_pct=1.0).contract()
    beyond = np.array([[-3, 0, 100, 64], [5, 5, 5, 5]], np.float32)  # a bit beyond the image, and of no size
    found, kept = place((64, 96), squashed).shown(beyond, (48, 48))
    assert kept.all()
    assert np.allclose(found, beyond * [0.5, 0.75, 0.5, 0.75])


def test_boxes_that_a_crop_leaves_come_back() -> None:
    contract = replace(coco.info((32, 32)), crop_mode="center", crop_pct=1.0).contract()
    there = place((64, 96), contract)
    found, kept = there.shown(BOXES, (32, 32))
    assert kept.tolist() == [True, True, True, False]
    assert np.allclose(there.boxes(found[1:2]), BOXES[1:2], atol=1e-4), "inside of the crop"
    assert there.boxes(found[:1])[0].tolist() == [16, 6, 20, 30], "cut at its edge"
