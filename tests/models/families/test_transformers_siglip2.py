"""Hugging Face's SigLIP 2 of any aspect ratio: the chain of images answers what the model does of their patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.transformers_siglip2 import OfImages

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def siglip2(**changes: Any) -> Any:
    return hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**{**SIZE, "patch_size": 8, "num_patches": 16, **changes}))


@pytest.mark.parametrize("changes", [{}, {"vision_use_head": False}, {"num_channels": 1}])
def test_the_chain_answers_what_the_model_does(changes: Any, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(lambda: siglip2(**changes)))


def test_patches_are_those_of_the_image_processor() -> None:
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

    class Seen(torch.nn.Module):
        config = hf.Siglip2VisionConfig(patch_size=8)

        def forward(self, patches: torch.Tensor, **told: torch.Tensor) -> Any:
            return patches, told

    image = torch.randn(3, 16, 24)
    patches, told = OfImages(Seen())(image[None])
    torch.testing.assert_close(patches[0], convert_image_to_patches(image, 8), rtol=0, atol=0)
    assert told["spatial_shapes"].tolist() == [[2, 3]]
    assert told["pixel_attention_mask"].all()


@torch.no_grad()
def test_positions_are_resampled_as_the_model_does(lively: Any) -> None:
    model, images = lively(siglip2), torch.randn(2, 3, 48, 24)
    family = family_of(model)
    found = family.as_chain(model, (3, 48, 24))(images)
    torch.testing.assert_close(found, family.original(model)(images)["pooler_output"], rtol=1e-4, atol=1e-4)


def test_sides_that_are_no_multiples_of_a_patch_are_refused(lively: Any) -> None:
    model = lively(siglip2)
    with pytest.raises(UserError, match=r"takes no images of \(3, 44, 48\): expected 3 channels and sides"):
        family_of(model).as_chain(model, (3, 44, 48))


@pytest.mark.slow
def test_the_whole_road(lively: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(lively(siglip2), tmp_path)
    assert cosine > 0.99
