"""All rewrites together leave the logits alone, and what cannot be rewritten is named."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from fixtures.rewritten import (
    ALL,
    SIZE,
    SWINS,
    VITS,
    OddMlp,
    assert_unchanged,
    differs,
    images_for,
    randomised,
    swin,
    vit,
)
from timm.layers import RmsNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites import apply
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites, resolve_rewrites
from fimaq_deploy.calibration.rewrites.rotation import rotate_heads
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.timm_vit import Vit
from fimaq_deploy.recipe import Rewrites


@pytest.mark.parametrize("keep_layer_norm", [False, True])
@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
def test_all_rewrites_together_keep_the_logits_of_a_vit(
    make: Callable[[], nn.Module], keep_layer_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "KEEP_LAYER_NORM", keep_layer_norm)
    model = make()
    rewritten = copy.deepcopy(model)
    applied = apply_rewrites(rewritten, images_for(model), ALL, seed=0)
    assert applied == ["rotate_residual", "rotate_heads", "balance_heads", "fold_norm_ranges"]
    assert_unchanged(model, rewritten)


@pytest.mark.parametrize("make", SWINS.values(), ids=SWINS)
def test_all_rewrites_together_keep_the_logits_of_a_swin(make: Callable[[], nn.Module]) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    rotate_heads(rewritten, seed=0)
    applied = apply_rewrites(rewritten, images_for(model), Rewrites(norm=True, heads=True), seed=0)
    assert applied == ["balance_heads", "fold_norm_ranges"]
    assert_unchanged(model, rewritten)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (swin, "patch_embed.norm"),
        (partial(vit, pre_norm=True), "norm_pre"),
        (partial(vit, embed_norm_layer=nn.LayerNorm), "patch_embed.norm"),
        (partial(vit, final_norm=False), "fc_norm"),
        (partial(vit, global_pool="max"), "global_pool"),
        (partial(vit, global_pool="map", class_token=False), "attn_pool"),
        (partial(vit, mlp_layer=OddMlp), "blocks.0"),
        (lambda: mixed_norms(), "blocks.1.norm2"),
    ],
)
def test_what_cannot_be_rotated_is_named(make: Callable[[], nn.Module], named: str) -> None:
    model = make()
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match=re.escape(named)):
        apply_rewrites(model, images_for(model), Rewrites(norm=False, heads=False, rotation=True), seed=0)
    assert not differs(before, model)


def mixed_norms() -> nn.Module:
    model = vit()
    model.blocks[1].norm2 = RmsNorm(24)
    return model


def test_a_default_rotation_skips_what_cannot_be_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vit, "rewrites", {"norm": False, "heads": True, "rotation": True})
    assert resolve_rewrites(vit(), Rewrites()) == Rewrites(norm=False, heads=True, rotation=True)
    refused = vit(pre_norm=True)
    assert "norm_pre" in str(family_of(refused).stream(refused))
    assert apply_rewrites(refused, images_for(refused), Rewrites(), seed=0) == ["balance_heads"]


def test_a_model_that_computes_something_else_is_an_error() -> None:
    class Odd(VisionTransformer):
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            return self.head(x[:, 0].abs())

    model = randomised(Odd(**SIZE, embed_dim=24, depth=1, num_heads=2))
    with pytest.raises(UserError, match="rotate_residual"):
        apply_rewrites(model, images_for(model), ALL, seed=0)


@pytest.mark.parametrize("make", [vit, partial(vit, qkv_bias=False), partial(vit, init_values=0.1), swin])
def test_the_structure_does_not_depend_on_the_images(make: Callable[[], nn.Module]) -> None:
    model = make()
    rewrites = Rewrites(norm=True, heads=True, rotation=not isinstance(family_of(model).stream(model), str))
    one, other = copy.deepcopy(model), copy.deepcopy(model)
    apply_rewrites(one, images_for(model), rewrites, seed=0)
    apply_rewrites(other, torch.zeros_like(images_for(model)[:1]), rewrites, seed=5)
    other.load_state_dict(one.state_dict())
    assert_unchanged(one, other)
