"""Norm outputs get one range for all channels, and the logits stay."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from fixtures.rewritten import BOTH, OddMlp, assert_unchanged, differs, images_for, spread, swin, vit
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites import channels
from fimaq_deploy.calibration.rewrites.channels import measure_channels
from fimaq_deploy.calibration.rewrites.norms import fold_norm_ranges

REWRITES: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "norm 1.0": lambda model, images: fold_norm_ranges(model, images, 1.0),
    "norm 0.5": lambda model, images: fold_norm_ranges(model, images, 0.5),
    "norm, scales only": lambda model, images: fold_norm_ranges(model, images, 1.0, shift=False),
}


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_each_rewrite_keeps_the_logits(make: Callable[[], nn.Module], rewrite: str) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    changed = REWRITES[rewrite](rewritten, images_for(model))
    assert_unchanged(model, rewritten)
    assert bool(changed) == differs(model, rewritten)


@pytest.mark.parametrize("names", [("blocks.0.norm1", "blocks.1.norm2"), ("layers.1.downsample.norm",)])
def test_folding_norms_gives_all_channels_one_centred_range(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "LARGEST_FACTOR", 1e6)
    model = swin() if names[0].startswith("layers") else vit()
    halfway = copy.deepcopy(model)
    fold_norm_ranges(halfway, images_for(model), 0.5)
    folded = copy.deepcopy(model)
    assert set(names) <= set(fold_norm_ranges(folded, images_for(model), 1.0))
    for name in names:
        assert spread(folded, name) < 1.001 < spread(halfway, name) < spread(model, name)
        stats = measure_channels(folded, images_for(model), {"x": folded.get_submodule(name)})["x"]
        assert stats.middle.abs().max() < 1e-4 * stats.reach().max()


def test_factors_are_bounded() -> None:
    model = vit()
    with torch.no_grad():
        model.blocks[0].norm1.weight[3] = 0
        model.blocks[0].norm1.weight[4] = 1e4
    weight = model.blocks[0].attn.qkv.weight.clone()
    rewritten = copy.deepcopy(model)
    fold_norm_ranges(rewritten, images_for(model), 1.0)
    ratio = rewritten.blocks[0].attn.qkv.weight / weight
    assert ratio.min() >= 1 / 16.001
    assert ratio.max() <= 16.001
    assert_unchanged(model, rewritten)


def test_norms_that_other_layers_read_are_left_alone() -> None:
    model = vit(mlp_layer=OddMlp)
    rewritten = copy.deepcopy(model)
    assert fold_norm_ranges(rewritten, images_for(model)) == ["blocks.0.norm1", "blocks.1.norm1"]
    assert_unchanged(model, rewritten)
