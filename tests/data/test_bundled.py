from __future__ import annotations

from typing import Any

import pytest
import torch

from fimaq_deploy.data.bundled import bundled_images, shipped_images
from fimaq_deploy.data.objects import labels_of
from fimaq_deploy.errors import UserError


@pytest.mark.parametrize(("split", "count"), [("calibration", 256), ("test", 600)])
def test_digits(split: Any, count: int) -> None:
    source = bundled_images("digits", split)
    assert source.count == count
    images = source.take(1000)
    assert images.shape == (count, 1, 16, 16)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)


def test_shapes() -> None:
    source = bundled_images("shapes", "test", 70)
    batches = list(source.batches(32))
    assert [len(batch.images) for batch in batches] == [32, 32, 6]
    assert all(batch.labels is not None and batch.labels.dtype == torch.int64 for batch in batches)
    assert (source.count, source.labelled, source.skipped) == (70, True, ())
    assert source.description == "bundled shapes, test split"


def test_count_of_zero() -> None:
    with pytest.raises(UserError, match="image count 0: expected at least 1"):
        bundled_images("shapes", "test", 0)


def test_scenes_are_labelled_with_objects_or_maps() -> None:
    (objects,), (maps,) = (list(bundled_images(task, "test", 6).batches()) for task in ("scenes", "maps"))
    assert torch.equal(objects.images, maps.images)
    assert objects.images.shape == (6, 3, 96, 96)
    assert (objects.images.min() >= -1, objects.images.max() <= 1) == (True, True)
    assert objects.labels is not None and objects.labels.shape == (6, 5, 6 + 96 * 96 // 16)
    assert maps.labels is not None and maps.labels.shape == (6, 96, 96)


def test_labels_of_a_shipped_model_begin_where_its_own_do() -> None:
    first, second = (next(shipped_images(name, "test", 4).batches()) for name in ("detr_shapes", "maskrcnn_shapes"))
    assert first.labels is not None and second.labels is not None
    ours, theirs = (labels_of(each.labels.numpy()) for each in (first, second))
    assert (theirs[ours >= 0] == ours[ours >= 0] + 1).all()
    assert ((theirs < 0) == (ours < 0)).all()
