"""timm's SwinTransformer by role: windows with their biases and masks, patch merging, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import WindowAttention
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.timm_swin import FAMILY, SwinAttention

Make = Callable[..., Any]


@pytest.mark.parametrize("windows", [0, 1, 3])
def test_window_attention_without_quantizers_is_timms(windows: int, lively: Make) -> None:
    attention = lively(lambda: WindowAttention(32, num_heads=4, window_size=(3, 3)))
    x = torch.randn(2 * max(windows, 1), 9, 32)
    mask = torch.where(torch.rand(windows, 9, 9) < 0.4, -100.0, 0.0) if windows else None
    torch.testing.assert_close(SwinAttention(attention)(x, mask), attention(x, mask=mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"window_size": 3}, {"depths": (1, 2, 1), "num_heads": (1, 2, 4)}], ids=str)
def test_its_stages_are_the_model(settings: Any, tiny_swin: Make, random_images: Make) -> None:
    model, x = tiny_swin(**settings), random_images(2, 32)
    FAMILY.check(model)
    expected = model(x)
    for stage in FAMILY.stages(model):
        x = stage.module(x)
    torch.testing.assert_close(x, expected)
    assert family_of(model) is FAMILY and FAMILY.image_shape(model) == (3, 32, 32)


def test_every_attention_is_found_in_order(tiny_swin: Make) -> None:
    model = tiny_swin()
    found = list(FAMILY.heads(model))
    assert [heads.name for heads in found] == [f"layers.{i}.blocks.{j}.attn" for i in (0, 1) for j in (0, 1)]
    assert [(heads.count, heads.size) for heads in found] == [(1, 16), (1, 16), (2, 16), (2, 16)]
    assert all(isinstance(FAMILY.spelled_out(model.get_submodule(heads.name)), SwinAttention) for heads in found)


def test_a_shift_is_not_for_norms_whose_output_is_padded(tiny_swin: Make) -> None:
    plain, padded = (list(FAMILY.norms(tiny_swin(window_size=size))) for size in (4, 3))
    assert all(reader.can_shift for reader in plain)
    assert {reader.name for reader in padded if not reader.can_shift} == {
        f"layers.{i}.blocks.{j}.norm1" for i in (0, 1) for j in (0, 1)
    }


def test_the_norm_of_patch_merging_is_read_by_its_reduction(tiny_swin: Make) -> None:
    model = tiny_swin()
    found = {reader.name: reader for reader in FAMILY.norms(model)}
    merging = model.layers[1].downsample
    assert found["layers.1.downsample.norm"].norm is merging.norm
    assert found["layers.1.downsample.norm"].linears == (merging.reduction,)
    assert len(found) == 9


def test_hidden_tokens_weigh_nothing_and_the_answer_stays(tiny_swin: Make, random_images: Make) -> None:
    model, images = tiny_swin(), random_images(2, 32)
    expected, (masked,) = model(images), [b for b in model.layers[0].blocks if b.attn_mask is not None]
    hidden = masked.attn_mask < 0
    FAMILY.prepare(model)
    assert hidden.any() and torch.equal(masked.attn_mask < 0, hidden) and not masked.attn_mask[~hidden].any()
    assert masked.attn_mask[hidden].exp().max() == 0
    torch.testing.assert_close(model(images), expected)


def test_the_stream_starts_at_a_norm(tiny_swin: Make) -> None:
    assert "module 'patch_embed.norm'" in str(FAMILY.stream(tiny_swin()))


@pytest.mark.parametrize(("pool", "mean"), [("avg", True), ("max", False), ("avgmax", True)])
def test_whether_the_head_reads_a_mean(pool: str, mean: bool, tiny_swin: Make) -> None:
    assert FAMILY.head_reads_a_mean(tiny_swin(global_pool=pool)) is mean


@pytest.mark.parametrize("name", ["layers.1", "layers.1.downsample", "layers.1.blocks.0", "layers.1.blocks.0.attn"])
def test_unknown_parts_are_refused_by_name(name: str, tiny_swin: Make) -> None:
    part = (model := tiny_swin()).get_submodule(name)
    known = type(part).__name__
    part.__class__ = type("Other", (type(part),), {})
    with pytest.raises(UserError, match=rf"^module '{name}' is a Other, .*expected {known}"):
        FAMILY.check(model)


def test_a_stem_of_convolutions_is_refused_by_name(tiny_swin: Make) -> None:
    model = tiny_swin()
    model.patch_embed = nn.Sequential(model.patch_embed)
    with pytest.raises(UserError, match=r"^mine has a Sequential stem"):
        FAMILY.check(model, "mine")
