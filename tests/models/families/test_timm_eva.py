"""timm's Eva in all its forms: the chain of a model answers what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import RmsNorm
from timm.models.eva import Eva, EvaAttention
from torch import nn

from fimaq_deploy.calibration.rewrites.apply import apply_rewrites
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.timm_eva import TimmEva
from fimaq_deploy.recipe import Rewrites

SIZE = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 20}
ROTARY = {"use_rot_pos_emb": True}
DINOV3 = {
    **ROTARY,
    "rope_type": "dinov3",
    "rope_rotate_half": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "init_values": 0.5,
    "global_pool": "token",
}
KINDS: dict[str, dict[str, Any]] = {
    "eva": {},
    "eva02": {**ROTARY, "swiglu_mlp": True, "scale_mlp": True, "qkv_fused": False, "ref_feat_shape": (2, 2)},
    "packed swiglu and inner norm": {**ROTARY, "swiglu_mlp": True, "scale_attn_inner": True},
    "dinov3": DINOV3,
    "dinov3 plus": {**DINOV3, "swiglu_mlp": True, "swiglu_align_to": 8, "num_classes": 0},
    "learned rotary": {**ROTARY, "rope_type": "mixed", "attn_type": "rope", "no_embed_class": True},
    "perception encoder": {**ROTARY, "attn_type": "rope", "use_pre_transformer_norm": True, "global_pool": "map"},
    "norms behind": {"use_post_norm": True, "global_pool": "avgmax"},
    "shared keys": {**DINOV3, "attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1, "qk_norm": True},
    "normed q and k": {**ROTARY, "qk_norm": True, "norm_layer": RmsNorm},
    "rotary attention without positions": {"attn_type": "rope"},
    "any size": {**ROTARY, "rope_type": "dinov3", "dynamic_img_size": True},
}


@pytest.fixture
def eva(lively: Any) -> Callable[..., Eva]:
    return lambda **changes: lively(lambda: Eva(**{**SIZE, **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_chain_answers_what_the_model_does(kind: str, eva: Any, equals_its_chain: Any) -> None:
    equals_its_chain(eva(**KINDS[kind]))


@pytest.mark.parametrize("kind", ["dinov3", "eva02"])
def test_the_whole_road(kind: str, eva: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(eva(**KINDS[kind]), tmp_path)
    assert cosine > 0.998 and not quantized.left_alone


def test_rotary_positions_keep_q_and_k_from_being_rewritten(eva: Any) -> None:
    model = eva(**DINOV3)
    assert not any(heads.plain_scores for heads in family_of(model).heads(model))
    assert all(heads.plain_scores for heads in family_of(model).heads(eva()))


@pytest.mark.parametrize("kind", ["eva", "eva02", "dinov3", "shared keys", "learned rotary"])
def test_every_exact_rewrite_is_exact(kind: str, eva: Any) -> None:
    model, images = eva(**KINDS[kind]), torch.randn(4, 3, 32, 24)
    chain = family_of(model).as_chain(model)
    before = chain(images)
    assert len(apply_rewrites(chain, images, Rewrites(norm=True, heads=True, rotation=True), seed=0)) == 4
    torch.testing.assert_close(chain(images), before, rtol=1e-4, atol=1e-4)


def test_an_attention_of_somebody_else_is_refused_by_name(eva: Any) -> None:
    model = eva()
    model.blocks[1].attn.__class__ = type("Own", (EvaAttention,), {})
    with pytest.raises(UserError, match=r"^module 'blocks.1.attn' is a Own"):
        TimmEva().check(model)


def test_images_of_another_size_are_refused_in_one_line(eva: Any) -> None:
    model = eva()
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 16, 16\)"):
        family_of(model).as_chain(model, (3, 16, 16))


def test_tokens_of_any_size_follow_the_images(eva: Any) -> None:
    model, images = eva(dynamic_img_size=True, **ROTARY, rope_type="dinov3"), torch.randn(2, 3, 40, 16)
    chain = family_of(model).as_chain(model, (3, 40, 16))
    torch.testing.assert_close(chain(images), model(images), rtol=1e-4, atol=1e-4)


def test_the_names_of_modules_lead_back_to_the_model(eva: Any) -> None:
    model = eva()
    origins: dict[str, str] = family_of(model).as_chain(model).origins  # type: ignore[union-attr, assignment]
    assert origins["blocks.1.mlp.fc1"] == "blocks.1.mlp.fc1" and origins["head.classifier"] == "head"
    assert isinstance(model.get_submodule(origins["blocks.0.norm1"]), nn.LayerNorm)
