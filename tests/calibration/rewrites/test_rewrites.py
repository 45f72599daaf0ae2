"""Each rewrite leaves the logits alone and does what it is for, on the structures that timm's ViT and Swin have."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from timm.layers import GluMlp, RmsNorm, SwiGLU
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.rewrites import apply, channels
from fimaq_deploy.calibration.rewrites.apply import apply_rewrites, resolve_rewrites
from fimaq_deploy.calibration.rewrites.channels import measure_channels
from fimaq_deploy.calibration.rewrites.heads import balance_heads
from fimaq_deploy.calibration.rewrites.norms import fold_norm_ranges
from fimaq_deploy.calibration.rewrites.rotation import random_rotation, rotate_heads, rotate_residual
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.timm_vit import Vit
from fimaq_deploy.recipe import Rewrites

RELATIVE = 1e-4
SIZE = {"img_size": 16, "patch_size": 4, "num_classes": 7}
ALL = Rewrites(norm=True, heads=True, rotation=True)


def vit(**options: Any) -> nn.Module:
    sizes = {**SIZE, "embed_dim": 24, "depth": 2, "num_heads": 2, **options}
    return randomised(VisionTransformer(**sizes))


def distilled(**options: Any) -> nn.Module:
    return randomised(VisionTransformerDistilled(**SIZE, embed_dim=32, depth=2, num_heads=2, **options))


def swin(**options: Any) -> nn.Module:
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 2, "drop_path_rate": 0.0}
    return randomised(SwinTransformer(**{**SIZE, "patch_size": 2, **sizes, **options}))


def gated() -> nn.Module:
    model = vit()
    for block in model.blocks:
        block.attn = Attention(24, 2, qkv_bias=True, gated=True)
    return randomised(model)


def randomised(model: nn.Module) -> nn.Module:
    """Nothing is zero, one or alike: every affine, bias, scale and token gets values with outliers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                centre = 0.0 if name.endswith("bias") else 1.0
                parameter.copy_(centre + 0.4 * noise + 2.0 * (noise > 1.5))
            else:
                parameter.copy_(noise / max(parameter[0].numel(), 1) ** 0.5 if "token" not in name else noise)
    return model.eval()


VITS: dict[str, Callable[[], nn.Module]] = {
    "plain": vit,
    "power of two": partial(vit, embed_dim=32),
    "layer scale, registers": partial(vit, init_values=0.1, reg_tokens=2, no_embed_class=True),
    "average pooling, fc_norm": partial(vit, global_pool="avg", class_token=False),
    "average pooling, norm": partial(vit, global_pool="avg", fc_norm=False),
    "q/k norms": partial(vit, qk_norm=True),
    "no qkv bias, no projection bias": partial(vit, qkv_bias=False, proj_bias=False),
    "inner norms": partial(vit, scale_attn_norm=True, scale_mlp_norm=True),
    "gated attention": lambda: gated(),
    "gated mlp": partial(vit, mlp_layer=GluMlp),
    "swiglu": partial(vit, mlp_layer=SwiGLU),
    "rms norms": partial(vit, norm_layer=RmsNorm),
    "norms without affine": partial(vit, norm_layer=partial(nn.LayerNorm, elementwise_affine=False)),
    "norms without bias": partial(vit, norm_layer=partial(nn.LayerNorm, bias=False)),
    "any image size": partial(vit, dynamic_img_size=True),
    "distilled": distilled,
}
SWINS: dict[str, Callable[[], nn.Module]] = {
    "plain": swin,
    "padded windows": partial(swin, window_size=3),
    "odd grid": partial(swin, img_size=18, window_size=4),
    "any image size": partial(swin, strict_img_size=False, window_size=3),
    "no qkv bias": partial(swin, qkv_bias=False),
}
BOTH = {**{f"vit, {name}": make for name, make in VITS.items()}, **{f"swin, {n}": make for n, make in SWINS.items()}}

REWRITES: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "norm 1.0": lambda model, images: fold_norm_ranges(model, images, 1.0),
    "norm 0.5": lambda model, images: fold_norm_ranges(model, images, 0.5),
    "norm, scales only": lambda model, images: fold_norm_ranges(model, images, 1.0, shift=False),
    "heads": balance_heads,
    "heads, centred values": lambda model, images: balance_heads(model, images, value_strength=1.0, centre_values=True),
    "rotate heads": lambda model, _images: rotate_heads(model, 3),
}


def images_for(model: nn.Module) -> Tensor:
    return torch.randn(6, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def assert_unchanged(model: nn.Module, rewritten: nn.Module) -> None:
    images = images_for(model)
    expected, got = model(images), rewritten(images)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= RELATIVE * expected.abs().max()


def differs(model: nn.Module, rewritten: nn.Module) -> bool:
    before, after = model.state_dict(), rewritten.state_dict()
    return before.keys() != after.keys() or any(not torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def spread(model: nn.Module, name: str) -> float:
    """The largest over the smallest reach of a module's output channels."""
    stats = measure_channels(model, images_for(model), {name: model.get_submodule(name)})[name]
    return float(stats.reach().max() / stats.reach().min())


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)
def test_each_rewrite_keeps_the_logits(make: Callable[[], nn.Module], rewrite: str) -> None:
    model = make()
    rewritten = copy.deepcopy(model)
    changed = REWRITES[rewrite](rewritten, images_for(model))
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


class OddMlp(nn.Module):
    """An MLP whose input also goes past its Linear."""

    def __init__(self, in_features: int, **_options: Any) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(in_features, in_features), nn.Linear(in_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).relu()) + x


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
    assert not differs(model, rewritten)


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


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (swin, "patch_embed.norm"),
        (partial(vit, pre_norm=True), "norm_pre"),
        (partial(vit, embed_norm_layer=nn.LayerNorm), "patch_embed.norm"),
        (partial(vit, final_norm=False), "fc_norm"),
        (partial(vit, global_pool="max"), "global_pool"),
        (partial(vit, global_pool="map", class_token=False), "attn_pool"),
        (partial(vit, num_classes=0), "head"),
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
