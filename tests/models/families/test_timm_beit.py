"""timm's Beit, and ViTs with attention pooling: what is quantized answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.beit import Beit

from fimaq_deploy.calibration.network.fidelity import require_same
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites
from fimaq_deploy.models.families import family_of
from fimaq_deploy.recipe import Rewrites

SIZE = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 20}
KINDS: dict[str, dict[str, Any]] = {
    "a bias of each block": {"use_rel_pos_bias": True, "use_abs_pos_emb": False, "init_values": 0.5},
    "a shared bias": {"use_shared_rel_pos_bias": True},
    "both": {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True, "qkv_bias": False},
    "swiglu": {"swiglu_mlp": True, "scale_mlp": True, "global_pool": "token"},
    "no classes": {"use_rel_pos_bias": True, "num_classes": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_chain_answers_what_the_model_does(kind: str, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(lambda: Beit(**{**SIZE, **KINDS[kind]})))


def test_the_whole_road(lively: Any, whole_road: Any, tmp_path: Path) -> None:
    model = lively(lambda: Beit(**{**SIZE, "use_rel_pos_bias": True, "init_values": 0.5}))
    quantized, cosine = whole_road(model, tmp_path)
    assert cosine > 0.998 and not quantized.left_alone


def test_every_exact_rewrite_is_exact(lively: Any) -> None:
    model = lively(lambda: Beit(**{**SIZE, "use_rel_pos_bias": True, "init_values": 0.5}))
    chain, images = family_of(model).as_chain(model), torch.randn(4, 3, 32, 24)
    before = chain(images)
    apply_rewrites(chain, images, Rewrites(norm=True, heads=True, rotation=True), seed=0)
    torch.testing.assert_close(chain(images), before, rtol=1e-4, atol=1e-4)


def test_attention_pooling_stays_in_floats_and_says_so(tiny_vit: Any, whole_road: Any, tmp_path: Path) -> None:
    model = tiny_vit(global_pool="map", class_token=False)
    family_of(model).check(model)
    require_same(model, explicit_copy(model), torch.randn(2, 3, 16, 16))
    quantized, cosine = whole_road(model, tmp_path)
    assert cosine > 0.99
    assert {"attn_pool.kv", "attn_pool.mlp.fc1"} <= quantized.left_alone.keys()
    assert "one row an image" in quantized.left_alone["attn_pool.kv"]
    assert not any(name.startswith("blocks") for name in quantized.left_alone)
