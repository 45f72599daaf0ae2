from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.minibatches import Rows, read_ahead
from fimaq_deploy.calibration.quantization import quantize

Make = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.mark.parametrize("budget", [0, 10**6])
def test_rows_are_the_rows_of_the_tensor_wherever_it_lies(budget: int) -> None:
    whole = torch.randn(20, 3, 2)
    with ActivationStore(budget_bytes=budget) as store:
        rows = store.rows(store.collect(whole.split(6), 20), CPU)
        assert rows.ahead == (budget == 0)
        assert len(rows) == 20 and torch.equal(rows[3:7], whole[3:7])
        order = (torch.randperm(20)[:4] for _ in itertools.count())
        for index in itertools.islice(read_ahead(order, lambda: [rows]), 8):
            assert torch.equal(rows[index], whole[index])
            assert torch.equal(rows[index], whole[index])  # also when it was fetched before


def test_the_next_minibatch_is_on_its_way_while_one_is_in_use() -> None:
    rows = Rows(torch.arange(10.0), CPU, ahead=True)
    batches = [torch.tensor([number, number + 1]) for number in range(4)]
    ahead = read_ahead(iter(batches), lambda: [rows])
    first = next(ahead)
    assert first is batches[0]
    assert [held for held, _ in rows._coming.values()] == [batches[1]]
    assert rows[next(ahead)].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_source_is_all_rows_and_an_index_or_the_rows_that_came(ahead: bool) -> None:
    rows, index = Rows(torch.arange(20.0).reshape(10, 2), CPU, ahead=ahead), torch.tensor([7, 2])
    for _ in range(2):
        tensor, where = rows.source(index)
        assert (where is None) == ahead
        assert torch.equal(tensor if where is None else tensor[where], rows.tensor[index])
        assert ahead or tensor is rows.tensor
        if ahead:
            rows.arrive(index)
            assert rows.source(torch.tensor([0, 0]))[0] is rows[index], "at one address"


def test_of_a_minibatch_that_arrived_a_part_can_be_read() -> None:
    rows, index = Rows(torch.arange(20.0), CPU, ahead=True), torch.tensor([7, 2, 9, 4])
    rows.arrive(index)
    address = rows[index].data_ptr()
    rows.part = slice(2, 4)
    assert rows[index[2:4]].tolist() == [9.0, 4.0] and rows.source(index[2:4])[0].tolist() == [9.0, 4.0]
    rows.part = None
    rows.arrive(index.flip(0))
    assert rows[index].tolist() == [4.0, 9.0, 2.0, 7.0] and rows[index].data_ptr() == address


def test_streaming_from_files_changes_no_number(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> None:
    recipe = quick_recipe(reconstruction={"loss": "brecq", "rounding": "straight_through", "iterations": 12})
    images = random_images(16)
    resident, streamed = (quantize(tiny_vit(), images, recipe, memory_bytes=budget) for budget in (2**30, 0))
    with torch.no_grad():
        assert torch.equal(resident(images), streamed(images))
