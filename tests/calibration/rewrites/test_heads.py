"""q, k and v are balanced head by head, and the logits stay."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from fixtures.rewritten import BOTH, assert_unchanged, differs, images_for, swin, vit
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites.channels import measure_channels
from fimaq_deploy.calibration.rewrites.heads import balance_heads, centre_values
from fimaq_deploy.calibration.rewrites.rotation import rotate_heads

REWRITES: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "heads": balance_heads,
    "heads, centred values": lambda model, images: balance_heads(model, images, value_strength=1.0, centre_values=True),
    "values": centre_values,
}


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_each_rewrite_keeps_the_logits(make: Callable[[], nn.Module], rewrite: str) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    changed = REWRITES[rewrite](rewritten, images_for(model))
    assert_unchanged(model, rewritten)
    assert bool(changed) == differs(model, rewritten)


@pytest.mark.parametrize("make", [vit, swin])
def test_balanced_heads_have_equal_channels(make: Callable[[], nn.Module]) -> None:
    model = make()
    balance_heads(model, images_for(model), value_strength=1.0, centre_values=True)
    name = "blocks.1.attn.qkv" if make is vit else "layers.0.blocks.1.attn.qkv"
    stats = measure_channels(model, images_for(model), {"qkv": model.get_submodule(name)})["qkv"]
    q, k, v = stats.reach().chunk(3)
    _, k_mean, v_mean = stats.mean.chunk(3)
    torch.testing.assert_close(q, k, rtol=1e-3, atol=0)
    torch.testing.assert_close(v, v[:1].expand_as(v), rtol=1e-3, atol=0)
    assert k_mean.abs().max() < 1e-5 * k.max()
    assert v_mean.abs().max() < 1e-5 * v.max()


def test_normalised_queries_and_outputs_are_left_alone() -> None:
    model = vit(qk_norm=True, scale_attn_norm=True)
    rewritten = copy.deepcopy(model)
    assert balance_heads(rewritten, images_for(model)) == rotate_heads(rewritten, 0) == []
    assert centre_values(rewritten, images_for(model)) == []
    assert not differs(model, rewritten)


def test_centred_values_have_mean_zero_and_queries_and_keys_stay() -> None:
    model = vit()
    rewritten = copy.deepcopy(model)
    centre_values(rewritten, images_for(model))
    name = "blocks.1.attn.qkv"
    before, after = (
        measure_channels(m, images_for(m), {name: m.get_submodule(name)})[name] for m in (model, rewritten)
    )
    assert after.mean.chunk(3)[2].abs().max() < 1e-5 < before.mean.chunk(3)[2].abs().max()
    torch.testing.assert_close(after.mean[:48], before.mean[:48], rtol=1e-3, atol=1e-4)
