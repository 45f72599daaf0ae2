from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError


def pixels(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def message(images: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        list(as_source(images, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_batches_are_regrouped() -> None:
    whole = pixels(10, 1, 2, 2)
    source = as_source([whole[:1], whole[1:8].numpy(), whole[8:]])
    found = list(source.batches(3))
    assert [len(batch.images) for batch in found] == [3, 3, 3, 1]
    assert torch.equal(torch.cat([batch.images for batch in found]), whole)
    assert torch.equal(source.take(4), whole[:4])
    assert (source.count, source.labelled) == (None, False)


def test_generator_streams_and_gives_one_pass() -> None:
    drawn = []

    def generate() -> Iterator[torch.Tensor]:
        for index in range(100):
            drawn.append(index)
            yield pixels(2, 1, 2, 2)

    source = as_source(generate())
    assert len(source.take(5)) == 5
    assert len(drawn) <= 4
    with pytest.raises(UserError, match="was read before: pass a list or a DataLoader"):
        source.take(5)


def test_arrays_are_checked_batch_by_batch() -> None:
    images = pixels(70, 1, 2, 2)
    images[40] = float("nan")
    assert message(images).startswith("images 32 to 63: 1 of 32 images hold NaN")
    assert message([images[:2], images[40:]]).startswith("batch 1: 1 of 30 images hold NaN")


def test_nothing_to_read() -> None:
    assert "yields nothing: expected at least one" in message([])
    assert "yields nothing" in message(iter(()))
    assert message([pixels(1, 3, 4, 4), pixels(0, 3, 4, 4)]).startswith("batch 1 has size 0")


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_of_zero(size: int) -> None:
    for source in (as_source(pixels(1, 1, 2, 2)), as_source([pixels(1, 1, 2, 2)])):
        with pytest.raises(UserError, match=f"batch size {size}: expected at least 1"):
            list(source.batches(size))
        with pytest.raises(UserError, match="image count"):
            source.take(size)


def test_labels_for_some_batches_only() -> None:
    images = pixels(3, 1, 2, 2)
    assert "some image batches have labels" in message([(images, [1, 2, 3]), images])
    assert "labels of several types or shapes" in message([(images, [1, 2, 3]), (images, [0.5, 1.0, 2.0])])
