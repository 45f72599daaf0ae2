"""timm's VisionTransformer: ViT, DeiT, DINOv2 (registers, LayerScale, SwiGLU), and what else is built of its Block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.layers import PatchEmbed
from timm.layers.attention import Attention
from timm.models import vision_transformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.family import Family, Position, expect
from fimaq_deploy.models.families.head import ATTENTION_POOL
from fimaq_deploy.models.families.roles import Edge, Heads, LayerScale, NormReaders, Stage, Stream, is_identity, is_rms
from fimaq_deploy.models.families.timm import Head, TimmAttention, block_norms, embedded_shape, expect_plain_stem

_HEADS = ("head", "head_dist")
_LAST = ("norm", "attn_pool", "fc_norm", *_HEADS)


class _Patches(Edge):
    """Images to tokens: patch embedding, class and register tokens, position embedding."""

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))


class Vit(Family):
    name = "vit"
    kinds = ("timm VisionTransformer",)

    def claims(self, model: object) -> bool:
        return isinstance(model, VisionTransformer)

    def stages(self, model: Any) -> list[Stage]:
        blocks = [Stage(f"blocks.{index}", block) for index, block in enumerate(model.blocks)]
        first, last = _Patches(model, ("patch_embed", "norm_pre")), Head(model, _LAST)
        return [Stage("patch_embed", first), *blocks, Stage("head", last)]

    def image_shape(self, model: Any) -> tuple[int, int, int]:
        return embedded_shape(model.patch_embed)

    def heads(self, model: Any) -> Iterator[Heads]:
        for index, block in enumerate(model.blocks):
            one = block.attn
            scores, values = is_identity(one, "q_norm", "k_norm"), is_identity(one, "norm")
            gated = not is_identity(one, "gate")
            yield Heads(f"blocks.{index}.attn", one.qkv, one.proj, one.num_heads, scores, values, gated)

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        return TimmAttention(attention)

    def norms(self, model: Any) -> Iterator[NormReaders]:
        for index, block in enumerate(model.blocks):
            yield from block_norms(f"blocks.{index}.", block)

    def position(self, layer: str) -> Position | None:
        return "head" if layer.split(".")[0] in _HEADS else super().position(layer)

    def head_reads_a_mean(self, model: Any) -> bool:
        return "avg" in model.global_pool

    def kept(self, model: Any) -> dict[str, str]:
        pooling = getattr(model, "attn_pool", None)
        return {} if pooling is None else {f"attn_pool.{name}": ATTENTION_POOL for name, _ in pooling.named_modules()}

    def check(self, model: Any, what: str = "the model") -> None:
        expect_plain_stem(model, what)
        for index, block in enumerate(model.blocks):
            expect(f"blocks.{index}", block, (Block,))
            expect(f"blocks.{index}.attn", block.attn, (Attention,))
        super().check(model, what)

    def stream(self, model: Any) -> Stream | str:
        obstacle = _embedding_obstacle(model) or _head_obstacle(model) or _block_obstacle(model)
        readers = None if obstacle else (*self.norms(model), _last_norm(model))
        if readers is None:
            return obstacle or ""
        odd = next((reader for reader in readers if is_rms(reader.norm) != is_rms(readers[0].norm)), None)
        if odd is not None:
            return f"module '{odd.name}' is a {type(odd.norm).__name__}: expected all LayerNorm or all RMSNorm"
        stored = (getattr(model, name, None) for name in ("cls_token", "reg_token", "dist_token", "pos_embed"))
        inside = (layer for one in model.blocks for layer in (one.attn.proj, one.mlp.fc2))
        return Stream(
            width=model.embed_dim,
            writers=(model.patch_embed.proj, *inside),
            tokens=tuple(tokens for tokens in stored if tokens is not None),
            readers=readers,
            scales=tuple(scale for block in model.blocks for scale in _scales(block)),
            open_end=None if _heads(model) else (model, "head"),
        )

    def translated(self, model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return vision_transformer.checkpoint_filter_fn(dict(state), model, adapt_layer_scale=True)


def _scales(block: Any) -> Iterator[LayerScale]:
    for leaf, writer in (("ls1", block.attn.proj), ("ls2", block.mlp.fc2)):
        if not isinstance(getattr(block, leaf), nn.Identity):
            yield LayerScale(block, leaf, writer)


def _embedding_obstacle(model: Any) -> str | None:
    if type(model.patch_embed) is not PatchEmbed:
        return f"module 'patch_embed' is a {type(model.patch_embed).__name__}, expected PatchEmbed"
    for name in ("patch_embed.norm", "norm_pre"):
        if not isinstance(model.get_submodule(name), nn.Identity):
            return f"module '{name}': a norm between the embedding and the blocks cannot take a rotation"
    return None


def _head_obstacle(model: Any) -> str | None:
    if model.attn_pool is not None:
        return "module 'attn_pool': attention pooling cannot take a rotation"
    if model.global_pool not in ("", "token", "avg"):
        return f"global_pool '{model.global_pool}': a maximum over rotated tokens is another one; expected token or avg"
    normed = [name for name in ("norm", "fc_norm") if not isinstance(getattr(model, name), nn.Identity)]
    if len(normed) != 1:
        return f"modules 'norm' and 'fc_norm': expected exactly one norm before the head, found {len(normed)}"
    others = [name for name, head in _heads(model).items() if not isinstance(head, nn.Linear)]
    return f"module '{others[0]}' is not a Linear" if others else None


def _block_obstacle(model: Any) -> str | None:
    for index, block in enumerate(model.blocks):
        if type(block) is not Block or len(list(block_norms("", block))) != 2:
            return f"module 'blocks.{index}' is a {type(block).__name__} of unknown parts, expected Block"
        if not isinstance(block.mlp.fc2, nn.Linear):
            return f"module 'blocks.{index}.mlp.fc2' is not a Linear"
    return None


def _heads(model: Any) -> dict[str, Any]:
    """Nothing where a model hands out its features."""
    found = {name: getattr(model, name) for name in _HEADS if hasattr(model, name)}
    return {} if len(found) == 1 and isinstance(model.head, nn.Identity) else found


def _last_norm(model: Any) -> NormReaders:
    leaf = "fc_norm" if isinstance(model.norm, nn.Identity) else "norm"
    return NormReaders(leaf, model, leaf, tuple(_heads(model).values()))


FAMILY = Vit()
