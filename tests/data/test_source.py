"""What every source of images promises, on the smallest one that keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource, drawn, require_positive
from fimaq_deploy.errors import UserError


@dataclass
class Counted(ImageSource):
    """Images (1, 1, 1) that are numbered; notes how large the batches are that were asked for and read."""

    total: int
    description: str = "numbers"
    labelled: bool = False
    asked: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.total

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Batch]:
        self.asked.append(size)
        for numbers in torch.arange(float(self.total)).split(size) if self.total else ():
            self.read.append(len(numbers))
            yield Batch(numbers.view(-1, 1, 1, 1), None)


@pytest.mark.parametrize(
    ("count", "found", "asked", "read"),
    [
        (1, 1, 1, [1]),
        (5, 5, 5, [5]),
        (32, 32, 32, [32]),
        (40, 40, 32, [32, 32]),
        (70, 70, 32, [32, 32, 6]),
        (1000, 70, 32, [32, 32, 6]),
    ],
)
def test_the_first_images_are_taken_and_no_more_batches_are_read(
    count: int, found: int, asked: int, read: list[int]
) -> None:
    source = Counted(70)
    taken = source.take(count)
    assert taken.shape == (found, 1, 1, 1) and taken.flatten().tolist() == list(range(found))
    assert (source.asked, source.read) == ([asked], read)


def test_iterating_gives_the_images_again_on_every_pass() -> None:
    source = Counted(33)
    for _ in range(2):
        assert [len(images) for images in source] == [32, 1]
    assert (source.skipped, source.notes) == ((), ())


def test_a_source_without_images_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^numbers: there is no image$"):
        Counted(0).take(3)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_one_line(count: int) -> None:
    source = Counted(4)
    with pytest.raises(UserError, match=rf"^image count {count}: expected at least 1$"):
        source.take(count)
    assert source.asked == [], "nothing was read for it"
    with pytest.raises(UserError, match=rf"^batch size {count}: expected at least 1$"):
        require_positive(count, "batch size")
    require_positive(1)


def test_positions_are_drawn_by_the_seed() -> None:
    whole = drawn(50, None, 3)
    assert whole.dtype == np.int64 and sorted(whole.tolist()) == list(range(50)) != whole.tolist()
    assert np.array_equal(drawn(50, 8, 3), whole[:8]), "a larger count extends a smaller one"
    assert not np.array_equal(drawn(50, None, 4), whole)
    assert sorted(drawn(5, 99, 0).tolist()) == list(range(5))
