"""What is read off the links of a chain: its attention, its norms, its residual stream, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.families.chain import Chain
from fimaq_deploy.models.families.chained import FAMILY
from fimaq_deploy.models.families.head import FirstToken, Head, Kept, Largest, Mean
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, PostNormBlock, Tokens

WIDTH, HEADS, PATCHES = 8, 2, 4
Change = Callable[[dict[str, nn.Module]], Any]


def block(kind: type[Block] = Block, *, kind_of_norm: Any = nn.LayerNorm, scaled: bool = False, **more: Any) -> Block:
    attention = Attention(nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), HEADS, **more)
    mlp = Mlp(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH))
    scales = (torch.rand(WIDTH), torch.rand(WIDTH)) if scaled else (None, None)
    return kind(kind_of_norm(WIDTH), attention, kind_of_norm(WIDTH), mlp, scales=scales)


def chain(change: Change = dict) -> Any:
    """Two blocks, the second with scales; `change` may put other links in their place."""
    links: dict[str, nn.Module] = {
        "patch_embed": Tokens(nn.Conv2d(3, WIDTH, 4, 4), torch.randn(1, 1 + PATCHES, WIDTH), PATCHES),
        "blocks.0": block(),
        "blocks.1": block(scaled=True),
        "head": Head(nn.LayerNorm(WIDTH), FirstToken(), None, nn.Linear(WIDTH, 3)),
    }
    change(links)
    return Chain(links, (3, 8, 8), classes=3)


def with_head(**parts: Any) -> Change:
    plain = {"norm": nn.LayerNorm(WIDTH), "classifier": nn.Linear(WIDTH, 3)}
    return lambda links: links.update(head=Head(**{**plain, **parts}))


def test_chains_are_its_own_and_it_says_what_they_say() -> None:
    model = chain()
    assert family_of(model) is FAMILY and not FAMILY.claims(model.head)
    assert FAMILY.image_shape(model) == (3, 8, 8) and FAMILY.classes(model) == 3
    assert [stage.name for stage in FAMILY.stages(model)] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    last: Any = FAMILY.stages(model)[-1].module
    assert last.features(torch.randn(2, 5, WIDTH)).shape == (2, WIDTH)


@pytest.mark.parametrize(
    ("more", "plain"),
    [
        ({}, (True, True, False)),
        ({"k_norm": nn.LayerNorm(4)}, (False, True, False)),
        ({"norm": nn.LayerNorm(WIDTH)}, (True, False, False)),
        ({"gate": nn.Linear(WIDTH, WIDTH)}, (True, True, True)),
    ],
)
def test_every_attention_is_found_with_what_stands_between(more: Any, plain: tuple[bool, ...]) -> None:
    model = chain(lambda links: links.update({"blocks.1": block(**more)}))
    _, found = FAMILY.heads(model)
    assert (found.name, found.count, found.size) == ("blocks.1.attn", HEADS, WIDTH // HEADS)
    assert (found.plain_scores, found.plain_values, found.gated) == plain
    own = model.get_submodule("blocks.1.attn")
    assert found.qkv is own.qkv and FAMILY.spelled_out(own) is own


def test_norms_of_the_stream_come_before_those_inside() -> None:
    model = chain(lambda links: links.update({"blocks.0": block(kind_of_norm=nn.RMSNorm)}))
    model.blocks[1].mlp.norm = nn.LayerNorm(12)
    names = [reader.name for reader in FAMILY.norms(model)]
    outer = [f"blocks.{number}.{leaf}" for number in (0, 1) for leaf in ("norm1", "norm2")]
    assert names == [*outer, "blocks.1.mlp.norm"]


def test_the_stream_is_all_that_writes_and_reads() -> None:
    model = chain()
    stream: Any = FAMILY.stream(model)
    first, second = model.blocks
    assert stream.width == WIDTH and stream.tokens == (model.patch_embed.prefix, model.patch_embed.position)
    writers = [layer for one in (first, second) for layer in (one.attn.proj, one.mlp.fc2)]
    assert stream.writers == (model.patch_embed.proj, *writers)
    assert [reader.norm for reader in stream.readers] == [
        *(norm for one in (first, second) for norm in (one.norm1, one.norm2)),
        model.head.norm,
    ]
    assert [(scale.owner, scale.leaf, scale.writer) for scale in stream.scales] == [
        (second, "ls1", second.attn.proj),
        (second, "ls2", second.mlp.fc2),
    ]


def normed_embedding(links: dict[str, nn.Module]) -> None:
    embedding: Any = links["patch_embed"]
    embedding.norm = nn.LayerNorm(WIDTH)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (normed_embedding, "module 'patch_embed': a norm of the embedding cannot take a rotation"),
        (lambda links: links.update({"blocks.1": block(PostNormBlock)}), "'blocks.1': a norm of what is written"),
        (lambda links: links.update({"blocks.1": nn.Identity()}), "module 'blocks.1': a block of this kind"),
        (lambda links: links.update({"blocks.1": block(kind_of_norm=nn.RMSNorm)}), "its norms are of two kinds"),
        (with_head(classifier=nn.ReLU()), "module 'head': expected a norm, a token or a mean, and a classifier"),
        (with_head(neck=nn.LayerNorm(WIDTH)), "module 'head': expected exactly one norm before the classifier"),
        (with_head(norm=None), "module 'head': expected exactly one norm before the classifier"),
        (with_head(pool=Largest(1)), "module 'head.pool': a Largest of rotated tokens is another one"),
    ],
)
def test_what_cannot_take_a_rotation_is_named(change: Change, reason: str) -> None:
    assert reason in str(FAMILY.stream(chain(change)))


def test_the_stream_of_a_chain_without_a_classifier_ends_openly() -> None:
    model = chain(with_head(classifier=None))
    stream: Any = FAMILY.stream(model)
    assert stream.readers[-1].linears == () and stream.open_end == (model.head, "classifier")


def test_the_last_norm_may_stand_behind_the_pooling() -> None:
    model = chain(with_head(norm=None, pool=Mean(1), neck=nn.LayerNorm(WIDTH)))
    stream: Any = FAMILY.stream(model)
    assert stream.readers[-1].name == "head.neck" and stream.readers[-1].norm is model.head.neck
    assert FAMILY.head_reads_a_mean(model) and not FAMILY.head_reads_a_mean(chain())


def test_parts_that_are_kept_are_named_with_their_reason() -> None:
    model = chain(with_head(pool=Kept(nn.Sequential(nn.Linear(WIDTH, WIDTH)), "it is small")))
    assert FAMILY.kept(chain()) == {}
    assert FAMILY.kept(model)["head.pool.part.0"] == "it is small"
    assert all(name.startswith("head.pool") for name in FAMILY.kept(model))
