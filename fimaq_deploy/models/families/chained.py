"""The family of chains, whoever built them: what there is to know of one is in its links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.chain import Chain, Shape
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.models.families.head import FirstToken, Head, Kept, Mean
from fimaq_deploy.models.families.parts import Attention, Block, PostNormBlock, Tokens
from fimaq_deploy.models.families.roles import (
    Heads,
    LayerScale,
    NormReaders,
    Stage,
    Stream,
    is_identity,
    is_norm,
    is_rms,
)


class Chained(Family):
    """What there is to know of a `Chain`, whoever built it."""

    name = "chain"
    kinds = ()

    def claims(self, model: object) -> bool:
        return isinstance(model, Chain)

    def stages(self, model: Any) -> list[Stage]:
        return model.stages()

    def image_shape(self, model: Any) -> Shape:
        return model.input_shape

    def heads(self, model: nn.Module) -> Iterator[Heads]:
        for name, one in model.named_modules():
            if isinstance(one, Attention):
                scores, values, gated = one.plain_scores, is_identity(one, "norm"), one.gate is not None
                yield Heads(name, one.qkv, one.proj, one.num_heads, scores, values, gated)

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        assert isinstance(attention, Attention)
        return attention

    def norms(self, model: Any) -> Iterator[NormReaders]:
        yield from _norms(model, "readers")
        yield from _norms(model, "inner_readers")

    def head_reads_a_mean(self, model: Any) -> bool:
        return model.head.reads_a_mean

    def kept(self, model: nn.Module) -> dict[str, str]:
        whole = [(name, one) for name, one in model.named_modules() if isinstance(one, Kept)]
        return {f"{name}.{leaf}": one.reason for name, one in whole for leaf, _ in one.named_modules()}

    def check(self, model: nn.Module, what: str = "the model") -> None:
        return

    def stream(self, model: Any) -> Stream | str:
        first, *blocks, last = (stage.module for stage in model.stages())
        obstacle = _embedding_obstacle(first) or _block_obstacle(model) or _head_obstacle(last)
        if obstacle:
            return obstacle
        readers = (*_norms(model, "readers"), _last_norm(last))
        if len({is_rms(reader.norm) for reader in readers}) > 1:
            return "its norms are of two kinds, expected all LayerNorm or all RMSNorm"
        scales = ((one, leaf, writer) for one in blocks for leaf, writer in _writers(one).items())
        return Stream(
            width=first.proj.out_channels,
            writers=(first.proj, *(writer for one in blocks for writer in _writers(one).values())),
            tokens=tuple(one for one in (first.prefix, first.position) if one is not None),
            readers=readers,
            scales=tuple(LayerScale(*one) for one in scales if not is_identity(one[0], one[1])),
            open_end=(last, "classifier") if isinstance(last.classifier, nn.Identity) else None,
        )


def _norms(model: Chain, kind: str) -> Iterator[NormReaders]:
    """What its links say of their norms."""
    for stage in model.stages():
        if hasattr(stage.module, kind):
            yield from (reader for reader in getattr(stage.module, kind)(stage.name) if is_norm(reader.norm))


def _last_norm(head: Any) -> NormReaders:
    leaf = "norm" if is_norm(head.norm) else "neck"
    readers = (head.classifier,) if isinstance(head.classifier, nn.Linear) else ()
    return NormReaders(f"head.{leaf}", head, leaf, readers)


def _writers(block: Any) -> dict[str, nn.Linear]:
    """Which layers write to the stream, by the name of the scale behind them."""
    return {"ls1": block.attn.proj, "ls2": block.mlp.fc2}


def _embedding_obstacle(first: nn.Module) -> str | None:
    plain = type(first) is Tokens and is_identity(first, "norm")
    return None if plain else "module 'patch_embed': a norm of the embedding cannot take a rotation"


def _block_obstacle(model: Any) -> str | None:
    for stage in model.stages()[1:-1]:
        if type(stage.module) is not Block or not is_norm(stage.module.norm1):
            kind = "a norm of what is written" if isinstance(stage.module, PostNormBlock) else "a block of this kind"
            return f"module '{stage.name}': {kind} cannot take a rotation"
    return None


def _head_obstacle(head: nn.Module) -> str | None:
    if not isinstance(head, Head) or not isinstance(head.classifier, nn.Linear | nn.Identity):
        return "module 'head': expected a norm, a token or a mean, and a classifier or nothing"
    norms = [one for one in (head.norm, head.neck) if not isinstance(one, nn.Identity)]
    if len(norms) != 1 or not is_norm(norms[0]):
        return "module 'head': expected exactly one norm before the classifier"
    linear = isinstance(head.pool, nn.Identity | FirstToken | Mean)
    return None if linear else f"module 'head.pool': a {type(head.pool).__name__} of rotated tokens is another one"


FAMILY = Chained()
