from __future__ import annotations

import pytest
import torch

from fimaq_deploy.data.batches import merge, regroup, rows_of
from fimaq_deploy.data.source import Batch
from fimaq_deploy.errors import UserError


def batches(*sizes: int, labelled: bool = True) -> list[Batch]:
    """Images numbered through, each with its number as its label."""
    numbers = torch.arange(sum(sizes)).split(sizes)
    return [Batch(part.float().view(-1, 1, 1, 1), part if labelled else None) for part in numbers]


@pytest.mark.parametrize("sizes", [(1,), (3, 3, 3), (10,), (1, 7, 2), (4, 4), (2, 2, 2, 2, 1)])
@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_the_same_images_in_the_same_order(sizes: tuple[int, ...], size: int) -> None:
    found = list(regroup(batches(*sizes), size))
    total = sum(sizes)
    assert torch.cat([batch.images.flatten() for batch in found]).tolist() == list(range(total))
    assert [len(batch.images) for batch in found] == [size] * (total // size) + ([total % size] if total % size else [])
    assert all(torch.equal(batch.images.flatten().long(), batch.labels) for batch in found if batch.labels is not None)


def test_batches_come_as_soon_as_they_are_whole() -> None:
    taken = []

    def watched():
        for number, batch in enumerate(batches(2, 2, 2, 2)):
            taken.append(number)
            yield batch

    next(regroup(watched(), 3))
    assert taken == [0, 1]


def test_without_labels_there_are_none() -> None:
    assert all(batch.labels is None for batch in regroup(batches(2, 3, labelled=False), 4))
    assert rows_of(batches(3, labelled=False)[0], slice(1, 3)).labels is None


def test_labels_for_some_are_refused() -> None:
    with pytest.raises(UserError, match="some image batches have labels and some have none"):
        merge([*batches(2), *batches(2, labelled=False)])


def test_labels_of_two_kinds_are_refused() -> None:
    (one,) = batches(2)
    with pytest.raises(UserError, match="labels of several types or shapes"):
        merge([one, Batch(one.images, torch.zeros(2, 5))])
