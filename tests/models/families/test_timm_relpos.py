"""timm's VisionTransformerRelPos: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 20}


@pytest.fixture
def relpos(lively: Any) -> Any:
    return lambda **changes: lively(lambda: VisionTransformerRelPos(**{**SIZE, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rel_pos_type": "bias", "class_token": True},
        {"class_token": True, "global_pool": "token"},
        {"shared_rel_pos": True, "init_values": None},
        {"rel_pos_type": "mlp_swin", "block_fn": ResPostRelPosBlock, "qk_norm": True},
        {"fc_norm": True, "img_size": (32, 48), "num_classes": 0},
    ],
)
def test_the_chain_answers_what_the_model_does(changes: Any, relpos: Any, equals_its_chain: Any) -> None:
    equals_its_chain(relpos(**changes))


@pytest.mark.slow
def test_the_whole_road(relpos: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(relpos(), tmp_path)
    assert cosine > 0.99


def test_another_attention_is_refused_by_name(relpos: Any) -> None:
    model = relpos()
    model.blocks[1].attn = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'blocks.1.attn' is a Identity"):
        family_of(model).check(model)
