from __future__ import annotations

from typing import Any

import pytest
import torch

from fimaq_deploy.data.bundled import bundled_images
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
