"""timm's NaFlexVit: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.load import load_model

SIZE = {"patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


@pytest.fixture
def naflex(lively: Any) -> Any:
    def make(img_size: Any = 32, **changes: Any) -> Any:
        return lively(
            lambda: NaFlexVit(
                NaFlexVitCfg(**{**SIZE, "pos_embed_grid_size": None, **changes}), img_size=img_size, num_classes=20
            )
        )

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_proj_type": "conv"},
        {"pos_embed": "factorized", "class_token": True, "reg_tokens": 2, "global_pool": "token"},
        {"global_pool": "map", "patchify_channels_last": False, "pre_norm": True},
        {"pos_embed_grid_size": (6, 6), "pos_embed_ar_preserving": True, "img_size": (32, 48), "init_values": 0.1},
    ],
)
def test_the_chain_answers_what_the_model_does(changes: Any, naflex: Any, equals_its_chain: Any) -> None:
    equals_its_chain(naflex(**changes))


@pytest.mark.slow
def test_the_whole_road(naflex: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(naflex(), tmp_path)
    assert cosine > 0.99


def test_the_size_that_is_asked_for(naflex: Any) -> None:
    model = load_model("naflexvit_base_patch16_gap", "random", image_size=(64, 96))
    assert family_of(model).image_shape(model) == (3, 64, 96)
    assert family_of(naflex()).image_shape(naflex()) == (3, 32, 32)


def test_positions_are_resampled_as_the_model_does(naflex: Any) -> None:
    model, images = naflex(), torch.randn(2, 3, 48, 40)
    chain = family_of(model).as_chain(model, (3, 48, 40))
    torch.testing.assert_close(chain(images), model(images), rtol=1e-4, atol=1e-4)


def test_what_is_refused(naflex: Any) -> None:
    model = naflex()
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 30, 32\)"):
        family_of(model).as_chain(model, (3, 30, 32))
    turned = naflex(rope_type="axial")
    with pytest.raises(UserError, match=r"^module 'rope': rotary positions of a NaFlexVit"):
        family_of(turned).check(turned)
