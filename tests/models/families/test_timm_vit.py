"""timm's VisionTransformer by role: stages, heads, norms, the residual stream, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import RmsNorm
from timm.layers.attention import Attention
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.head import ATTENTION_POOL
from fimaq_deploy.models.families.timm import TimmAttention
from fimaq_deploy.models.families.timm_vit import FAMILY

Make = Callable[..., Any]


@pytest.mark.parametrize("pool", ["token", "avg", "map", "prr"])
def test_its_stages_are_the_model(pool: str, tiny_vit: Make, random_images: Make) -> None:
    model, x = tiny_vit(global_pool=pool, pre_norm=True), random_images(2)
    FAMILY.check(model)
    expected = model(x)
    for stage in FAMILY.stages(model):
        x = stage.module(x)
    torch.testing.assert_close(x, expected)
    assert family_of(model) is FAMILY and FAMILY.image_shape(model) == (3, 16, 16)


@pytest.mark.parametrize("block", [ParallelScalingBlock, ParallelThingsBlock, ResPostBlock])
def test_unknown_blocks_are_refused_by_name(tiny_vit: Make, block: type[nn.Module]) -> None:
    with pytest.raises(UserError, match=rf"module 'blocks\.0' is a {block.__name__}.*expected Block"):
        FAMILY.check(tiny_vit(block_fn=block))


def test_unknown_attention_is_refused_by_name(tiny_vit: Make) -> None:
    class OtherAttention(Attention):
        pass

    model = tiny_vit()
    model.blocks[1].attn = OtherAttention(32, 2)
    with pytest.raises(UserError, match=r"module 'blocks\.1\.attn' is a OtherAttention"):
        FAMILY.check(model)


class Gated(Attention):
    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **{**settings, "gated": True})


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, (True, True, False)),
        ({"qk_norm": True}, (False, True, False)),
        ({"scale_attn_norm": True}, (True, False, False)),
        ({"attn_layer": Gated}, (True, True, True)),
    ],
)
def test_heads_say_what_stands_between(settings: Any, plain: tuple[bool, ...], tiny_vit: Make) -> None:
    model = tiny_vit(**settings)
    for number, heads in enumerate(FAMILY.heads(model)):
        assert (heads.plain_scores, heads.plain_values, heads.gated) == plain
        assert (heads.name, heads.count, heads.size) == (f"blocks.{number}.attn", 2, 16)
        assert isinstance(FAMILY.spelled_out(model.get_submodule(heads.name)), TimmAttention)


def test_both_classifiers_of_a_distilled_model_are_heads(tiny_deit: Make) -> None:
    assert FAMILY.position("head_dist") == FAMILY.position("head") == "head"
    assert FAMILY.position("patch_embed.proj") == "patch_embed" and FAMILY.position("blocks.0.mlp.fc1") is None
    model = tiny_deit()
    stream: Any = FAMILY.stream(model)
    assert stream.readers[-1].linears == (model.head, model.head_dist)
    assert any(tokens is model.dist_token for tokens in stream.tokens)


def test_the_stream_is_all_that_writes_and_reads(tiny_vit: Make) -> None:
    model = tiny_vit(init_values=0.3, reg_tokens=2)
    stream: Any = FAMILY.stream(model)
    layers = [(one.attn.proj, one.mlp.fc2) for one in model.blocks]
    assert stream.width == 32 and stream.writers == (model.patch_embed.proj, *layers[0], *layers[1])
    assert stream.tokens == (model.cls_token, model.reg_token, model.pos_embed)
    names = [f"blocks.{number}.{leaf}" for number in (0, 1) for leaf in ("norm1", "norm2")]
    assert [reader.name for reader in stream.readers] == [*names, "norm"]
    assert [scale.writer for scale in stream.scales] == [*layers[0], *layers[1]]


def test_the_stream_of_a_model_without_a_head_ends_openly(tiny_vit: Make) -> None:
    model = tiny_vit(num_classes=0)
    stream: Any = FAMILY.stream(model)
    assert stream.readers[-1].name == "norm" and stream.readers[-1].linears == ()
    assert stream.open_end == (model, "head")
    with_one: Any = FAMILY.stream(tiny_vit())
    assert with_one.open_end is None


def with_head(model: Any, head: nn.Module) -> nn.Module:
    model.head = head
    return model


def mixed(make: Make) -> nn.Module:
    model = make()
    model.blocks[1].norm2 = RmsNorm(32)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda vit: vit(pre_norm=True), "module 'norm_pre': a norm between the embedding and the blocks"),
        (lambda vit: vit(embed_norm_layer=nn.LayerNorm), "module 'patch_embed.norm': a norm between"),
        (lambda vit: vit(global_pool="map", class_token=False), "module 'attn_pool': attention pooling"),
        (lambda vit: vit(global_pool="max"), "global_pool 'max': a maximum over rotated tokens is another one"),
        (lambda vit: vit(final_norm=False), "expected exactly one norm before the head, found 0"),
        (lambda vit: with_head(vit(), nn.Sequential(nn.Linear(32, 4))), "module 'head' is not a Linear"),
        (lambda vit: vit(block_fn=ResPostBlock), "module 'blocks.0' is a ResPostBlock of unknown parts"),
        (mixed, "module 'blocks.1.norm2' is a RmsNorm: expected all LayerNorm or all RMSNorm"),
    ],
)
def test_what_cannot_take_a_rotation_is_named(make: Make, reason: str, tiny_vit: Make) -> None:
    assert reason in str(FAMILY.stream(make(tiny_vit)))


def test_pooling_says_what_the_head_reads_and_what_is_kept(tiny_vit: Make) -> None:
    assert FAMILY.head_reads_a_mean(tiny_vit(global_pool="avg")) and not FAMILY.head_reads_a_mean(tiny_vit())
    kept = FAMILY.kept(tiny_vit(global_pool="map"))
    assert kept["attn_pool.kv"] == ATTENTION_POOL and FAMILY.kept(tiny_vit()) == {}


def test_checkpoints_of_the_papers_own_names_are_read(tiny_vit: Make) -> None:
    model = tiny_vit(init_values=0.3)
    state = {name.replace("ls1.gamma", "gamma_1"): tensor for name, tensor in model.state_dict().items()}
    assert "blocks.0.gamma_1" in state
    assert FAMILY.translated(model, state).keys() == model.state_dict().keys()
