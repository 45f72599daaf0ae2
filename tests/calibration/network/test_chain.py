"""What is quantized in a model's place takes the images that it was made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.network.chain import chain_of
from fimaq_deploy.errors import UserError

Make = Callable[..., Any]


def test_images_of_another_size_are_one_line(tiny_vit: Make, random_images: Make) -> None:
    with pytest.raises(UserError) as raised:
        chain_of(tiny_vit(), random_images(2, size=24))
    assert str(raised.value) == "calibration images are (3, 24, 24), the model expects (3, 16, 16): resize them"
    with pytest.raises(UserError, match=r"^calibration images are \(1, 16, 16\)"):
        chain_of(tiny_vit(), torch.zeros(2, 1, 16, 16))


def test_a_model_of_any_size_takes_any_size(tiny_vit: Make, random_images: Make) -> None:
    model, images = tiny_vit(dynamic_img_size=True), random_images(2, size=24)
    with torch.no_grad():
        assert torch.equal(chain_of(model, images)(images), model(images))


def test_a_stranger_has_no_chain() -> None:
    with pytest.raises(UserError, match="expected"):
        chain_of(nn.Conv2d(3, 4, 2), torch.zeros(1, 3, 16, 16))
