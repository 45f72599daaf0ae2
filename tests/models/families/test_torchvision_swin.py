"""torchvision's SwinTransformer, v1 and v2: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

SIZE = {"patch_size": [4, 4], "embed_dim": 32, "depths": [2, 2], "num_heads": [1, 2], "window_size": [4, 4]}
V2 = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}


@pytest.fixture
def swin(lively: Any) -> Any:
    def make(image_size: Any = None, **changes: Any) -> Any:
        model = lively(lambda: SwinTransformer(**{**SIZE, "num_classes": 20, **changes}))
        if image_size:
            model.image_size = image_size
        return model

    return make


@pytest.mark.parametrize("changes", [{}, V2])
@pytest.mark.parametrize("image_size", [None, (36, 20), (16, 64)])
def test_the_chain_answers_what_the_model_does(changes: Any, image_size: Any, swin: Any, equals_its_chain: Any) -> None:
    assert equals_its_chain(swin(image_size, **changes)).num_classes == 20


def test_the_size_is_that_whose_last_map_is_a_window(swin: Any) -> None:
    assert family_of(swin()).image_shape(swin()) == (3, 32, 32)
    assert family_of(swin(64)).image_shape(swin(64)) == (3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, V2])
def test_the_whole_road(changes: Any, swin: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(swin(**changes), tmp_path)
    assert cosine > 0.99 and not quantized.left_alone


def test_another_attention_is_refused_by_name(swin: Any) -> None:
    model = swin()
    model.features[1][1].attn = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'features.1.1.attn' is a Identity"):
        family_of(model).check(model)
