"""Hugging Face's ViTMAE encoder: all patches in their order, whatever it hides in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
IMAGES = {"image_size": 32, "patch_size": 8}


@pytest.fixture
def mae(lively: Any) -> Any:
    return lively(lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**SIZE, **IMAGES, mask_ratio=0.75)))


def test_the_chain_answers_what_the_model_does(mae: Any, equals_its_chain: Any) -> None:
    equals_its_chain(mae)
    assert mae.config.mask_ratio == 0.75


def test_its_class_token_is_that_of_the_model_with_nothing_hidden(mae: Any) -> None:
    images, chain = torch.randn(2, 3, 32, 32), family_of(mae).as_chain(mae)
    mae.config.mask_ratio = 0.0
    torch.testing.assert_close(chain(images)[:, 0], mae(images).last_hidden_state[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_whole_road(mae: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(mae, tmp_path)
    assert cosine > 0.99 and not quantized.left_alone


def test_images_of_another_size_are_refused(mae: Any) -> None:
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 40, 40\): expected \(3, 32, 32\)"):
        family_of(mae).as_chain(mae, (3, 40, 40))
