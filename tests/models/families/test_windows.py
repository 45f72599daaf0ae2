"""Parts of windowed models: windows there and back, masks of shifted ones, merging, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.parts import Attention, Mlp
from fimaq_deploy.models.families.windows import (
    HIDDEN,
    Merging,
    PostNormWindowBlock,
    TokenMap,
    WindowBlock,
    halved,
    joined_windows,
    partitioned,
    patch_grid,
    shift_mask,
)


def block(kind: Any = WindowBlock, **sizes: Any) -> Any:
    torch.manual_seed(0)
    attention, mlp = Attention(nn.Linear(8, 24), nn.Linear(8, 8), 2), Mlp(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    return kind(nn.LayerNorm(8), attention, nn.LayerNorm(8), mlp, **sizes)


def test_windows_there_and_back() -> None:
    x = torch.randn(2, 6, 8, 3)
    windows = partitioned(x, (3, 4))
    assert windows.shape == (8, 12, 3)
    assert torch.equal(windows[1].view(3, 4, 3), x[0, :3, 4:])
    assert torch.equal(joined_windows(windows, (3, 4), (6, 8)), x)


def test_a_mask_is_timms() -> None:
    theirs = SwinTransformerBlock(8, (12, 8), num_heads=1, window_size=4, shift_size=2).attn_mask
    ours = shift_mask((12, 8), (4, 4), (2, 2))
    assert theirs is not None and ours is not None
    assert torch.equal(ours[:, 0], theirs.masked_fill(theirs < 0, HIDDEN))


def test_a_side_without_a_shift_hides_nothing() -> None:
    mask = shift_mask((4, 8), (4, 4), (0, 2))
    assert mask is not None and (mask[0] == 0).all() and (mask[1] < 0).any()
    assert shift_mask((4, 4), (4, 4), (0, 0)) is None


def test_the_two_orders_of_padding_differ_where_there_is_some() -> None:
    x = torch.randn(1, 5, 5, 8)
    first, last = (block(grid=(5, 5), window=(4, 4), shift=(2, 2), pad_last=late) for late in (False, True))
    assert first(x).shape == x.shape and not torch.allclose(first(x), last(x))
    whole = [block(grid=(8, 8), window=(4, 4), shift=(2, 2), pad_last=late) for late in (False, True)]
    x = torch.randn(1, 8, 8, 8)
    assert torch.equal(whole[0](x), whole[1](x))


def test_the_norm_before_padding_cannot_be_shifted() -> None:
    padded, whole = block(grid=(6, 6), window=(4, 4)), block(grid=(8, 8), window=(4, 4))
    assert [one.can_shift for one in padded.readers("a")] == [False, True]
    assert [one.can_shift for one in whole.readers("a")] == [True, True]
    assert list(block(PostNormWindowBlock, grid=(8, 8), window=(4, 4)).readers("a")) == []


def test_merging_pads_what_is_odd() -> None:
    merging = Merging(nn.LayerNorm(12), nn.Linear(12, 6, bias=False), (3, 4))
    assert merging(torch.randn(2, 3, 4, 3)).shape == (2, 2, 2, 6)
    assert [one.name for one in merging.readers("a")] == ["a.norm"] and halved((3, 4)) == (2, 2)
    last = Merging(nn.LayerNorm(6), nn.Linear(12, 6, bias=False), (4, 4), norm_last=True)
    assert last(torch.randn(2, 4, 4, 3)).shape == (2, 2, 2, 6) and list(last.readers("a")) == []


def test_a_map_of_tokens() -> None:
    proj = nn.Conv2d(3, 5, 4, 4)
    images, positions = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 5)
    expected = proj(images).permute(0, 2, 3, 1)
    assert torch.equal(TokenMap(proj)(images), expected)
    assert torch.equal(TokenMap(proj, positions=positions)(images), expected + positions)
    assert patch_grid(proj, (3, 8, 12)) == (2, 3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8), (3, 0, 8)])
def test_images_of_parts_of_patches_are_refused(shape: Any) -> None:
    with pytest.raises(UserError, match="whole patches of 4×4"):
        patch_grid(nn.Conv2d(3, 5, 4, 4), shape)
