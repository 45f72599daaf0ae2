"""timm's SwinTransformerV2: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timm.models.swin_transformer_v2 import SwinTransformerV2

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

SIZE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 20}


@pytest.fixture
def swin(lively: Any) -> Any:
    return lambda **changes: lively(lambda: SwinTransformerV2(**{**SIZE, "window_size": 4, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_size": 3},  # windows that are padded
        {"img_size": (32, 48), "pretrained_window_sizes": (4, 2)},
        {"window_size": 8, "num_classes": 0},
    ],
)
def test_the_chain_answers_what_the_model_does(changes: Any, swin: Any, equals_its_chain: Any) -> None:
    equals_its_chain(swin(**changes))


def test_the_whole_road(swin: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(swin(), tmp_path)
    assert cosine > 0.99
    assert not any("mlp" in name or "qkv" in name for name in quantized.left_alone)


def test_a_size_of_its_own_is_asked_for(swin: Any) -> None:
    with pytest.raises(UserError, match=r"^module 'layers.0.blocks.0': images of any size are not understood"):
        family_of(swin(dynamic_img_size=True)).check(swin(dynamic_img_size=True))
