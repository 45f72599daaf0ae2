from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.learning.batches import merged, minibatches, relative_error, run_batches


def test_an_epoch_shows_every_image_once() -> None:
    torch.manual_seed(0)
    epochs = list(itertools.islice(minibatches(12, 4), 6))
    assert all(len(batch) == 4 for batch in epochs)
    assert sorted(torch.cat(epochs[:3]).tolist()) == sorted(torch.cat(epochs[3:]).tolist()) == list(range(12))
    assert not torch.equal(torch.cat(epochs[:3]), torch.cat(epochs[3:]))


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    assert sorted(next(minibatches(3, 32)).tolist()) == [0, 1, 2]


def test_a_remainder_takes_its_turn_in_other_epochs() -> None:
    torch.manual_seed(0)
    batches = list(itertools.islice(minibatches(10, 4), 20))
    assert all(len(batch) == 4 and len(set(batch.tolist())) == 4 for batch in batches)
    assert set(torch.cat(batches).tolist()) == set(range(10))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_set_in_batches_is_the_set(size: int) -> None:
    layer, images = nn.Linear(3, 2), torch.randn(7, 3)
    outputs = list(run_batches(layer, images, size))
    assert [len(output) for output in outputs] == [len(part) for part in images.split(size)]
    assert not any(output.requires_grad for output in outputs)
    torch.testing.assert_close(torch.cat(outputs), layer(images).detach())


def test_relative_error_is_error_over_power() -> None:
    z = torch.randn(7, 3)
    noisy = z + 0.1 * torch.randn(7, 3)
    expected = ((noisy - z) ** 2).sum() / (z**2).sum()
    assert relative_error(iter(noisy.split(2)), z) == pytest.approx(expected.item(), rel=1e-5)
    assert relative_error(iter([torch.zeros(2)]), torch.zeros(2)) == 0


def test_relative_error_of_a_sample_is_that_of_its_images() -> None:
    z, outputs = torch.tensor([[2.0], [1.0], [100.0]]), torch.tensor([[1.0], [1.0]])
    assert relative_error(iter([outputs]), z) == pytest.approx(1 / 5)


def test_groups_of_one_rate_are_one_group() -> None:
    first, second, third = (nn.Parameter(torch.zeros(size)) for size in (1, 2, 3))
    groups = [
        {"params": [first], "lr": 0.1},
        {"params": [], "lr": 0.5},
        {"params": [second], "lr": 0.2},
        {"params": [third], "lr": 0.1},
    ]
    found = merged(groups)
    assert [group["lr"] for group in found] == [0.1, 0.2]
    assert [[len(one) for one in group["params"]] for group in found] == [[1, 3], [2]]
