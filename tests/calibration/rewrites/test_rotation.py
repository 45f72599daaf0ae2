"""The residual stream and the heads are rotated, and the logits stay."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from fixtures.rewritten import BOTH, VITS, assert_unchanged, differs, images_for, spread, vit
from torch import nn

from fimaq_deploy.calibration.rewrites.rotation import random_rotation, rotate_heads, rotate_residual


@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_rotating_heads_keeps_the_logits(make: Callable[[], nn.Module]) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    changed = rotate_heads(rewritten, 3)
    assert_unchanged(model, rewritten)
    assert bool(changed) == differs(model, rewritten)


@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
def test_rotating_the_residual_stream_keeps_the_logits(make: Callable[[], nn.Module]) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    rotate_residual(rewritten, seed=0)
    assert_unchanged(model, rewritten)
    norms = [getattr(block, leaf) for block in rewritten.blocks for leaf in ("norm1", "norm2")]
    assert all(type(norm) is nn.RMSNorm and norm.weight is None for norm in norms)
    assert all(isinstance(scale, nn.Identity) for block in rewritten.blocks for scale in (block.ls1, block.ls2))
    assert not isinstance(rewritten.norm, nn.LayerNorm)
    assert not isinstance(rewritten.fc_norm, nn.LayerNorm)


@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
def test_a_rotation_that_keeps_means_keeps_layer_norms(make: Callable[[], nn.Module]) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    rotate_residual(rewritten, seed=0, keep_layer_norm=True)
    assert_unchanged(model, rewritten)
    kind = nn.LayerNorm if isinstance(model.blocks[0].norm1, nn.LayerNorm) else nn.RMSNorm
    norms = [getattr(block, leaf) for block in rewritten.blocks for leaf in ("norm1", "norm2")]
    assert all(type(norm) is kind and norm.weight is None for norm in norms)


@pytest.mark.parametrize("keep_layer_norm", [False, True])
def test_a_rotation_spreads_an_outlier_channel(keep_layer_norm: bool) -> None:
    model = vit(embed_dim=32)
    with torch.no_grad():
        model.blocks[0].mlp.fc2.bias[5] += 50
    before = spread(model, "blocks.0")
    rotate_residual(model, seed=0, keep_layer_norm=keep_layer_norm)
    assert spread(model, "blocks.0") < before / 3


@pytest.mark.parametrize("size", [1, 3, 8, 24, 64])
def test_random_rotations_are_orthogonal_and_follow_the_seed(size: int) -> None:
    matrix, again, other = (random_rotation(size, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))
    assert torch.equal(matrix, again)
    assert size == 1 or not torch.equal(matrix, other)
    if size in (8, 64):
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


def test_a_rotated_model_exports_to_plain_operators(tmp_path: Path) -> None:
    model = vit(depth=1)
    kept, rms = copy.deepcopy(model), copy.deepcopy(model)
    rotate_residual(kept, seed=0, keep_layer_norm=True)
    rotate_residual(rms, seed=0)
    before, after_kept, after_rms = (exported_operators(m, tmp_path / "model.onnx") for m in (model, kept, rms))
    assert before["LayerNormalization"] == 3
    assert after_kept == before
    assert after_rms["LayerNormalization"] == 0
    assert set(after_rms) - set(before) <= {"Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul"}


def exported_operators(model: nn.Module, path: Path) -> Counter[str]:
    images = images_for(model)[:1]
    torch.onnx.export(model, (images,), path, dynamo=True, opset_version=21, verbose=False)
    return Counter(node.op_type for node in onnx.load(path).graph.node)
