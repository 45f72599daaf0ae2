"""MaskFormer's own Swin: its chain answers the same maps inside of the segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")

STAGES = [f"stage{number}" for number in range(1, 5)]


def segmenter(**changes: Any) -> Any:
    size = {"image_size": 32, "embed_dim": 16, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4}
    body = hf.SwinConfig(**{**size, **changes}, patch_size=2, out_features=STAGES)
    wide = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 16)
    few = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    decoder = hf.DetrConfig(**wide, **few, encoder_layers=1, decoder_layers=1, num_queries=4)
    return hf.MaskFormerForInstanceSegmentation(
        hf.MaskFormerConfig(
            backbone_config=body, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_labels=3
        )
    )


PLACE = "model.pixel_level_module.encoder"


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (3, 32, 32)),
        ({"window_size": 3}, (3, 36, 52)),  # windows that are padded, odd maps that are merged
    ],
)
def test_the_chain_in_its_place_changes_nothing(
    changes: Any, shape: tuple[int, int, int], lively: Any, same_with_its_chain: Any
) -> None:
    same_with_its_chain(lively(lambda: segmenter(**changes)), PLACE, shape)


@pytest.mark.slow
def test_deployed_inside(lively: Any, deployed_inside: Any, tmp_path: Path) -> None:
    assert deployed_inside(lively(segmenter), (3, 32, 32), tmp_path).place == PLACE


def test_what_is_not_understood_is_refused(lively: Any) -> None:
    encoder = lively(lambda: segmenter(use_absolute_embeddings=True)).get_submodule(PLACE)
    with pytest.raises(UserError, match=r"^the model adds absolute positions"):
        family_of(encoder).check(encoder)
    encoder = lively(segmenter).get_submodule(PLACE)
    encoder.model.encoder.layers[1].blocks[0] = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'model.encoder.layers.1.blocks.0' is a Identity"):
        family_of(encoder).check(encoder)
