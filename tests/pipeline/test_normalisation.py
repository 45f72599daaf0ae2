"""A second normalisation is found by what it does, and joins the contract's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import coco
from torch import Tensor, nn

from fimaq_deploy.pipeline.normalisation import Normalisation, find_normalisation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def changed(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (MEAN, STD))
    return (images - mean) / std


def test_what_torchvision_says_is_taken_and_checked() -> None:
    model: Any = nn.Identity()
    model.transform = SimpleNamespace(image_mean=list(MEAN), image_std=list(STD))
    assert find_normalisation(model, IMAGES, changed(IMAGES)) == Normalisation(MEAN, STD)
    model.transform.image_std = [1.0] * 3  # not what it does
    assert find_normalisation(model, IMAGES, changed(IMAGES)) == Normalisation(MEAN, STD)


def test_what_a_wrapper_does_is_found() -> None:
    found = find_normalisation(nn.Identity(), IMAGES, changed(IMAGES))
    assert found == Normalisation(MEAN, STD), "in the digits that were written"
    assert torch.allclose(found(IMAGES), changed(IMAGES))
    doubled = find_normalisation(nn.Identity(), IMAGES, IMAGES * 255)
    assert doubled is not None
    assert torch.allclose(doubled(IMAGES), IMAGES * 255, rtol=1e-5)


def test_nothing_is_a_normalisation_too() -> None:
    found = find_normalisation(nn.Identity(), IMAGES, IMAGES)
    assert found is not None and found.changes_nothing
    assert found(IMAGES) is IMAGES


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.flip(1),
        lambda images: images.square(),
        lambda images: -images,
        lambda images: images[..., :8],
        lambda images: images * 0,
        lambda images: images.roll(1, 3),
    ],
)
def test_anything_else_is_none(change: Callable[[Tensor], Tensor]) -> None:
    assert find_normalisation(nn.Identity(), IMAGES, change(IMAGES)) is None


def test_a_channel_of_one_value_shows_nothing() -> None:
    assert find_normalisation(nn.Identity(), torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)) is None


def test_two_normalisations_are_one() -> None:
    contract = replace(coco.info((8, 8)).contract(), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    mean, std = Normalisation(MEAN, STD).behind(contract)
    pixels = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    first = Normalisation(contract.mean, contract.std)(pixels)
    assert np.allclose(Normalisation(mean, std)(pixels), Normalisation(MEAN, STD)(first), atol=1e-5)
    assert Normalisation((0.0,) * 3, (1.0,) * 3).behind(contract) == (contract.mean, contract.std)
